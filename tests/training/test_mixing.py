"""MixUp and CutMix: the target says what is to be seen, and training takes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.data.shards import Shards
from tasks.schema import Augment, Recipe, Train
from tasks.training.loop import Epoch, fit
from tasks.training.mixing import mixing
from tasks.training.models import ModelSpec, build


def batch(count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are all of one value, which is also their label."""
    labels = torch.arange(count) % 10
    return labels.float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous(), labels


def mixed(seed: int = 0, **recipe: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return mixing(Recipe(**recipe), 10)(*batch())


@pytest.mark.parametrize("recipe", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_the_target_is_what_is_to_be_seen(recipe: dict[str, float]) -> None:
    images, targets = mixed(**recipe)
    assert torch.allclose(targets.sum(1), torch.ones(400))
    assert (targets > 0).sum(1).max() == 2
    # the mean of an image is the mean of its labels, by their shares
    assert torch.allclose(images.mean((1, 2, 3)), targets @ torch.arange(10.0), atol=1e-4)
    own = targets[torch.arange(400), batch()[1]]
    assert len(own.unique()) > 50  # each image draws its own share


def test_mixup_blends_and_cutmix_pastes_a_rectangle() -> None:
    blended, _ = mixed(mixup=1.0)
    assert blended.flatten(1).std(1).max() < 1e-5
    pasted, _ = mixed(cutmix=1.0)
    own, other = batch()[0], batch()[0].roll(1, 0)
    assert ((pasted == own) | (pasted == other)).all()
    foreign = (pasted != own)[:, 0]
    box = foreign.any(2).sum(1) * foreign.any(1).sum(1)
    assert torch.equal(box, foreign.sum((1, 2)))


def test_some_images_stay_whole_when_asked_and_mixup_keeps_the_larger_share() -> None:
    _, targets = mixed(mixup=1.0, mix_probability=0.25)
    own = targets[torch.arange(400), batch()[1]]
    assert own.min() >= 0.5
    assert 0.65 < (own == 1).float().mean() < 0.85


def test_turned_off_labels_stay_labels() -> None:
    images, labels = batch()
    for recipe in (Recipe(), Recipe(mixup=0.5, mix_probability=0.0)):
        state = torch.get_rng_state()
        same, targets = mixing(recipe, 10)(images, labels)
        assert same is images
        assert targets is labels
        assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_repeats() -> None:
    first, again, other = mixed(1, cutmix=1.0), mixed(1, cutmix=1.0), mixed(2, cutmix=1.0)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


STRONG = Augment(**{**dict.fromkeys(Augment.model_fields), "preset": "strong", "flip": False})


def test_a_strongly_augmented_run_cut_off_ends_as_an_unbroken_one(
    shards: Shards, spec: ModelSpec, config: Callable[..., Train], tmp_path: Path
) -> None:
    settings = config(
        epochs=3,
        augment=STRONG.model_dump(),
        imbalance={
            "sampling": "oversample",
            "class_weights": "none",
            "beta": 0.9,
            "focal_gamma": 1.0,
            "logit_adjustment": 0.0,
        },
    )
    checkpoint = tmp_path / "checkpoint.pt"

    def run(**options: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build(spec)
        fit(model, shards.split("train"), shards.split("validation"), spec, settings, **options)
        return model.state_dict()

    def cut(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    unbroken = run()
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=checkpoint, on_epoch=cut)
    resumed = run(checkpoint=checkpoint)
    for name, value in unbroken.items():
        assert torch.equal(value, resumed[name]), name
