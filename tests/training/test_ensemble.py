"""Votes and soups of real, trained networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Ensemble, Train
from tasks.training.ensemble import (
    Member,
    cross_entropy,
    greedy_soup,
    load_members,
    vote,
    write_ensemble,
)
from tasks.training.inference import predict
from tasks.training.loop import fit
from tasks.training.models import ModelSpec, build

Trained = Callable[..., Member]


@pytest.fixture(scope="module")
def trained(shards: Shards) -> Trained:
    """Makes a member: a network of its own seed, width and normalisation."""
    from tests.training.conftest import TRAIN

    splits = shards.split("train"), shards.split("validation")

    def make(seed: int, spec: ModelSpec) -> Member:
        torch.manual_seed(seed)
        model = build(spec)
        config = Train.model_validate({**TRAIN, "epochs": 4, "seed": seed})
        best = fit(model, *splits, spec, config).best
        return Member(f"trial-{seed}", model, spec, best.validation_loss)

    return make


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def noisy(member: Member, name: str, scale: float, seed: int, shards: Shards) -> Member:
    """A copy with noise on its weights."""
    model = build(member.spec)
    model.load_state_dict(member.model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(scale * weight.std() * torch.randn(weight.shape, generator=generator))
    model.eval()
    loss = cross_entropy(model, member.spec, shards.split("validation"))
    return Member(name, model, member.spec, loss)


def test_a_vote_is_the_mean_of_the_members_probabilities(
    trained: Trained, spec: ModelSpec, shards: Shards, tmp_path: Path
):
    """Of other widths, and normalised by other means."""
    other = spec.model_copy(update={"width": 6, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)})
    members = [trained(0, spec), trained(1, other)]
    split = shards.split("validation")
    each = [softmax(predict(member.model, split.images, member.spec)) for member in members]
    together = softmax(predict(vote(members, spec), split.images, spec))
    np.testing.assert_allclose(together, np.mean(each, 0), atol=1e-5)
    third = spec.model_copy(update={"mean": (0.1, 0.1, 0.1)})
    again = softmax(predict(vote(members, third), split.images, third))
    np.testing.assert_allclose(again, np.mean(each, 0), atol=1e-4)

    write_ensemble(tmp_path, "vote", members, ["trial-0", "trial-1"])
    config = Ensemble(kind="vote", size=2, of="trials")
    loaded = vote(load_members(tmp_path, config), spec)
    np.testing.assert_array_equal(softmax(predict(loaded, split.images, spec)), together)
    soup = config.model_copy(update={"kind": "soup"})
    with pytest.raises(TrainingError, match=r"of kind vote, ensemble\.kind is soup"):
        load_members(tmp_path, soup)
    (tmp_path / "ensemble.json").unlink()
    with pytest.raises(TrainingError, match="no ensemble in"):
        load_members(tmp_path, config)


def test_a_soup_keeps_what_helps(trained: Trained, spec: ModelSpec, shards: Shards):
    """The noise of two copies of a network averages out; another network does not mix."""
    splits = shards.split("train"), shards.split("validation")
    good, stranger = trained(0, spec), trained(7, spec)
    first, second = (noisy(good, f"noisy-{seed}", 0.3, seed, shards) for seed in (1, 2))
    members = sorted([first, second], key=lambda member: member.loss)
    soup, made_of = greedy_soup([*members, stranger], *splits)
    assert made_of == [member.name for member in members]
    assert soup.loss < members[0].loss
    assert soup.loss == cross_entropy(soup.model, spec, splits[1])
    weights = [member.model.head.weight for member in members]
    torch.testing.assert_close(soup.model.head.weight, (weights[0] + weights[1]) / 2)


def test_a_soup_of_strangers_is_the_best_of_them(trained: Trained, spec: ModelSpec, shards: Shards):
    wide = trained(3, spec.model_copy(update={"width": 6}))
    members = [trained(0, spec), trained(7, spec), wide]
    soup, made_of = greedy_soup(members, shards.split("train"), shards.split("validation"))
    assert (soup, made_of) == (members[0], ["trial-0"])


def test_batch_norms_of_a_soup_are_measured_on_training_images(
    trained: Trained, spec: ModelSpec, shards: Shards
):
    good = trained(0, spec)
    members = [noisy(good, f"noisy-{seed}", 0.3, seed, shards) for seed in (1, 2)]
    train, validation = shards.split("train"), shards.split("validation")
    soup, made_of = greedy_soup(sorted(members, key=lambda m: m.loss), train, validation)
    assert len(made_of) == 2
    seen = []
    norm = soup.model.backbone.stem[1]
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predict(soup.model, train.images, spec)
    mean = torch.cat([batch.clone() for batch in seen]).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, atol=0.02, rtol=0.02)
