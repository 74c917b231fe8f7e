"""Structured pruning: what leaves, how much of what, in how many steps, and what cannot."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.compression import targets
from tasks.compression.channels import (
    keep_of_all,
    keep_of_layers,
    remove,
    require_prunable,
    score,
    widths,
)
from tasks.compression.importance import measure_of
from tasks.compression.prune import Pruner, prune
from tasks.compression.targets import count_parameters, removed_from
from tasks.data.shards import Shards, ShardSplit
from tasks.errors import CompressionError, ParamsError
from tasks.params import load_params
from tasks.schema import Params, Prune
from tasks.training.models import Classifier, ModelSpec, build

Network = tuple[Classifier, ModelSpec]
Splits = tuple[ShardSplit, ShardSplit]
KillAt = Callable[[int, Callable[[], object]], None]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def splits(digit_shards: Shards) -> Splits:
    return few(digit_shards.split("train"), 160), few(digit_shards.split("validation"), 60)


def few(split: ShardSplit, count: int) -> ShardSplit:
    fields = split.images, split.labels, split.statistics, split.hashes, split.paths
    return ShardSplit(*(values[:count] for values in fields))


def section(conf: Params, **values: Any) -> Prune:
    return Prune.model_validate(conf.compress.prune.model_dump() | values)


def pruned(network: Network, splits: Splits, pruning: Prune) -> tuple[Classifier, float]:
    """The network without its share, not tuned, and how much of the target that share was."""
    model, spec = network
    with removed_from(model, spec, pruning.target, 10) as removed:
        (ratio,) = pruning.ratios
        pruner = Pruner(model, spec, splits[0], pruning, ratio, seed=0)
        slim = pruner.without(model, ratio, removed)
        return slim, removed(slim)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("target", ["channels", "macs", "parameters"])
def test_at_least_the_ratio_leaves_and_little_more(
    network: Network, splits: Splits, conf: Params, target: str, scope: str
) -> None:
    widest = build(network[1].model_copy(update={"width": 32})).eval()
    for ratio in (0.3, 0.6):
        chosen = section(conf, target=target, scope=scope, ratios=[ratio])
        slim, removed = pruned((widest, network[1]), splits, chosen)
        assert ratio <= removed < ratio + 0.15
        assert slim(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
        convolutions = [m for m in slim.modules() if isinstance(m, nn.Conv2d)]
        assert all(layer.out_channels % 8 == 0 for layer in convolutions)


@pytest.mark.parametrize("architecture", ["resnet_small", "mobilenet_v2"])
def test_pruning_removes_whole_channels_but_no_class(
    network: Network, splits: Splits, conf: Params, architecture: str
) -> None:
    spec = network[1].model_copy(update={"architecture": architecture, "size": 32})
    torch.manual_seed(0)
    model = build(spec).eval()
    slim, _ = pruned((model, spec), splits, section(conf, ratios=[0.5]))
    assert count_parameters(slim) < 0.45 * count_parameters(model)
    assert slim(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_measured_latency_decides_once_and_a_killed_run_keeps_to_it(
    network: Network,
    splits: Splits,
    conf: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: KillAt,
) -> None:
    """Latency stands for the number of parameters here: tests do not rest on a clock."""

    def export(model: Classifier, spec: ModelSpec, path: Path) -> None:
        path.write_bytes(bytes(count_parameters(model)))

    def timed(runs: dict[str, Path], times: int) -> dict[str, Any]:
        return {name: SimpleNamespace(median_ms=p.stat().st_size) for name, p in runs.items()}

    monkeypatch.setattr(targets, "export", export)
    monkeypatch.setattr(targets, "onnx_run", lambda path, image, threads: path)
    monkeypatch.setattr(targets, "choose_threads", lambda path, image, times: 1)
    monkeypatch.setattr(targets, "measure_latency", timed)
    chosen = section(conf, target="latency", ratios=[0.6], steps=2, epochs=4)
    _, removed = pruned(network, splits, chosen)
    assert 0.6 <= removed < 0.75

    def run(name: str) -> Classifier:
        settings = chosen, conf.compress.distil
        return prune(*network, splits, conf.train, settings, 0.6, tmp_path / name, 10)

    unbroken = run("unbroken.pt")
    killed_at(3, lambda: run("killed.pt"))
    # another machine by now: everything is as slow as the original
    monkeypatch.setattr(
        targets, "measure_latency", lambda runs, times: timed(dict.fromkeys(runs, tmp_path), 1)
    )
    resumed = run("killed.pt")
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("target", ["channels", "macs"])
def test_what_cannot_leave_is_said_before_any_tuning(
    network: Network, splits: Splits, conf: Params, tmp_path: Path, target: str
) -> None:
    settings = section(conf, target=target, ratios=[0.999], steps=3), conf.compress.distil
    with pytest.raises(CompressionError, match=rf"ratios 0\.999 of the {target} cannot leave: .*"):
        prune(*network, splits, conf.train, settings, 0.999, tmp_path / "pruned.pt", 10)
    assert not list(tmp_path.iterdir())


def test_each_importance_finds_the_channel_that_is_useless_by_it(
    network: Network, splits: Splits
) -> None:
    model, spec = network
    block = model.backbone.blocks[1]
    spoilt = {"batch_norm_scale": 1, "taylor": 2, "magnitude": 3}

    def least(importance: str, change: Callable[[Any], None]) -> int:
        torch.manual_seed(0)
        changed = build(spec)
        changed.load_state_dict(model.state_dict())
        with torch.no_grad():
            change(changed.backbone.blocks[1])
        measure = measure_of(importance, changed.eval(), spec, splits[0], seed=0)
        return int(score(changed, spec, measure)["backbone.blocks.1.conv1"].argmin())

    def small_scale(block: Any) -> None:
        block.norm1.weight[1] = 1e-6
        block.conv1.weight[1] *= 100

    def unused(block: Any) -> None:
        """Large weights whose output nothing depends on: only gradients tell."""
        block.conv1.weight[2] *= 100
        block.norm1.weight[2] = -1e-3
        block.norm1.bias[2] = -50.0

    def small_weights(block: Any) -> None:
        block.conv1.weight[3] *= 1e-4
        block.conv2.weight[:, 3] *= 1e-4

    assert block.norm1.weight[1] > 1e-3
    assert least("batch_norm_scale", small_scale) == spoilt["batch_norm_scale"]
    assert least("taylor", unused) == spoilt["taylor"]
    assert least("magnitude", unused) != spoilt["taylor"]
    assert least("magnitude", small_weights) == spoilt["magnitude"]


def test_global_takes_from_where_channels_matter_least() -> None:
    useless = torch.cat([torch.full((24,), 0.01), torch.full((8,), 4.0)])
    scores = {"idle": useless, "busy": torch.ones(32)}
    original = {"idle": 32, "busy": 32}
    assert keep_of_all(scores, original, 8, 24 / 64) == {"idle": 8, "busy": 32}
    assert keep_of_layers(scores, original, 8, 24 / 64) == {"idle": 16, "busy": 16}
    for keep in (keep_of_all, keep_of_layers):
        assert keep(scores, original, 8, 0.0) == original
        assert keep(scores, original, 8, 1.0) == {"idle": 8, "busy": 8}


def test_a_layer_narrower_than_a_multiple_stays_whole() -> None:
    scores = {"narrow": torch.ones(6), "odd": torch.ones(20)}
    assert keep_of_layers(scores, {"narrow": 6, "odd": 20}, 8, 0.5) == {"narrow": 6, "odd": 8}


def test_the_least_important_channels_leave(network: Network) -> None:
    model, spec = network
    wide = widths(model, spec)
    name = "backbone.blocks.1.conv1"
    scores = {group: torch.arange(float(count)).flip(0) for group, count in wide.items()}
    slim = remove(model, spec, scores, wide | {name: 8})
    before, after = model.get_submodule(name).weight, slim.get_submodule(name).weight
    assert torch.equal(after, before[:8])
    assert widths(slim, spec) == wide | {name: 8}


def test_steps_end_at_the_same_size_as_one_and_share_the_epochs(
    network: Network,
    splits: Splits,
    conf: Params,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = []
    for steps in (1, 3):
        settings = section(conf, target="macs", steps=steps, epochs=4), conf.compress.distil
        with caplog.at_level("INFO"):
            model = prune(*network, splits, conf.train, settings, 0.5, tmp_path / f"{steps}.pt", 10)
        sizes.append(targets.macs(model, 8) / targets.macs(network[0], 8))
    assert max(sizes) <= 0.5
    assert min(sizes) > 0.35
    assert [caplog.text.count(text) for text in ("epoch 4/4", "epoch 1/1", "epoch 2/2")] == [
        1,
        2,
        1,
    ]


def test_fine_tuning_goes_on_while_the_rate_is_high(
    network: Network,
    splits: Splits,
    conf: Params,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It makes a trained network worse first, which is no reason to stop."""
    impatient = conf.train.model_copy(update={"patience": 1})
    settings = section(conf, epochs=6, lr=1.0), conf.compress.distil
    with caplog.at_level("INFO"):
        prune(*network, splits, impatient, settings, 0.5, tmp_path / "one.pt", 1)
    losses = [record.args[3] for record in caplog.records if record.msg.startswith("epoch %d/%d")]
    assert len(losses) == 6
    assert any(later > before for before, later in pairwise(losses[:3]))


def test_the_teachers_weight_is_that_of_the_section_prune(
    network: Network, splits: Splits, conf: Params, tmp_path: Path
) -> None:
    def tuned(name: str, alpha: float, students: float) -> torch.Tensor:
        pruning = section(conf, alpha=alpha, epochs=1)
        distil = conf.compress.distil.model_copy(update={"alpha": students})
        path = tmp_path / name
        slim = prune(*network, splits, conf.train, (pruning, distil), 0.5, path, 1)
        return slim.head.weight

    labels = tuned("labels.pt", 0.0, 0.9)
    assert torch.equal(labels, tuned("same.pt", 0.0, 0.1))
    assert not torch.equal(labels, tuned("taught.pt", 0.9, 0.9))


def test_scores_that_are_not_finite_are_refused(network: Network, splits: Splits) -> None:
    model, spec = build(network[1]), network[1]
    with torch.no_grad():
        model.backbone.blocks[0].conv1.weight[0] = float("nan")
    with pytest.raises(CompressionError, match=r"importance of .*backbone\..* is not finite"):
        score(model, spec, measure_of("magnitude", model, spec, splits[0], seed=0))


def test_batch_norm_scale_needs_batch_norms(network: Network, splits: Splits) -> None:
    spec = network[1].model_copy(update={"architecture": "convnext_tiny"})
    model = Classifier(nn.Conv2d(3, 8, 3), nn.Linear(8, 10))
    with pytest.raises(CompressionError, match=r"convnext_tiny.*take magnitude or taylor"):
        measure_of("batch_norm_scale", model, spec, splits[0], seed=0)


def test_a_vision_transformer_is_not_pruned_and_says_why(network: Network) -> None:
    spec = network[1].model_copy(update={"architecture": "vit_b_32", "size": 32})
    with torch.device("meta"):
        model = build(spec)
    with pytest.raises(CompressionError, match="heads of a vision transformer"):
        require_prunable(model)


def test_a_step_without_an_epoch_is_refused() -> None:
    overrides = {"compress.prune.steps": 30, "compress.prune.epochs": 4}
    with pytest.raises(ParamsError, match="every step needs an epoch"):
        load_params(ROOT / "conf/presets/quickstart.yaml", overrides)


def test_taylor_sees_what_is_served(network: Network, digit_shards: Shards) -> None:
    """Training images are packed with a margin: their middle gives the gradients."""
    model, spec = network
    split = digit_shards.split("train")
    framed = np.pad(split.images, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=255)
    found = []
    for images in (split.images, framed):
        given = ShardSplit(images, split.labels, split.statistics, split.hashes, split.paths)
        copied = build(spec)
        copied.load_state_dict(model.state_dict())
        found.append(score(copied, spec, measure_of("taylor", copied.eval(), spec, given, seed=0)))
    for name, values in found[0].items():
        assert torch.allclose(values, found[1][name])
