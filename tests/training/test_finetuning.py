"""Stages, freezing, staged unfreezing, layer-wise rates, kept batch-norm statistics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Architecture, Finetune, Train
from tasks.training.finetuning import parameter_groups, stages, start_training
from tasks.training.loop import Epoch, fit
from tasks.training.models import Classifier, ModelSpec, build, save_model
from tasks.training.optimisation import make_optimizer, make_schedule

Config = Callable[..., Train]
FREE: dict[str, Any] = {
    "freeze": 0,
    "unfreeze_every": 0,
    "layer_decay": 1.0,
    "freeze_norm": False,
}
COUNTS = {
    "resnet_small": 4, "resnet18": 5, "resnet50": 5, "mobilenet_v2": 9, "mobilenet_v3_small": 7,
    "efficientnet_b0": 9, "convnext_tiny": 5, "vit_b_16": 13,
}  # fmt: skip


def of(spec: ModelSpec, architecture: str) -> Classifier:
    return build(spec.model_copy(update={"architecture": architecture, "size": 32}))


def parameters(parts: list[Any]) -> list[nn.Parameter]:
    own = [list(p.parameters()) if isinstance(p, nn.Module) else [p] for p in parts]
    return [parameter for some in own for parameter in some]


@pytest.fixture
def start(spec: ModelSpec, tmp_path: Path) -> str:
    """A model directory to start from, of other classes."""
    other = spec.model_copy(update={"classes": ("x", "y")})
    torch.manual_seed(5)
    model = build(other)
    model(torch.randn(64, 3, 8, 8) + 1)  # statistics of its own
    save_model(tmp_path / "start", model, other)
    return str(tmp_path / "start")


def train(shards: Shards, spec: ModelSpec, config: Train, **options: object) -> Classifier:
    torch.manual_seed(0)
    model = build(spec, config.weights)
    fit(model, shards.split("train"), shards.split("validation"), spec, config, **options)
    return model


def state(module: nn.Module) -> dict[str, bytes]:
    return {k: v.contiguous().numpy().tobytes() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_every_parameter_of_the_backbone_is_in_one_stage(spec: ModelSpec, architecture: str):
    with torch.device("meta"):
        model = of(spec, architecture)
    found = stages(model)
    listed = [id(p) for stage in found for p in parameters(stage.parts)]
    assert sorted(listed) == sorted(id(p) for p in model.backbone.parameters())
    assert [stage.name for stage in found[:2]] == ["stem", "stage1"]
    assert len(found) == COUNTS.get(architecture, len(found))
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert id(first.weight) in {id(p) for p in parameters(found[0].parts)}


@pytest.mark.parametrize("freeze", [2, "stage1"])
def test_a_frozen_stage_stays_as_it_was_and_the_others_learn(
    shards: Shards, spec: ModelSpec, config: Config, start: str, freeze: int | str
):
    settings = config(epochs=2, weights=start, finetune={**FREE, "freeze": freeze})
    model = train(shards, spec, settings)
    for (name, parts), (_, before) in zip(stages(model), stages(build(spec, start)), strict=True):
        for now, then in zip(parts, before, strict=True):
            assert (state(now) == state(then)) == (name in ("stem", "stage1")), name


def test_a_linear_probe_learns_the_head_alone(
    shards: Shards, spec: ModelSpec, config: Config, start: str
):
    settings = config(epochs=3, weights=start, finetune={**FREE, "freeze": "all"})
    model = train(shards, spec, settings)
    fresh = build(spec, start)
    assert state(model.backbone) == state(fresh.backbone)
    torch.manual_seed(0)
    assert state(model.head) != state(build(spec, start).head)


def test_kept_norms_keep_their_statistics_and_learn_their_scale(
    shards: Shards, spec: ModelSpec, config: Config, start: str
):
    settings = config(epochs=1, weights=start, finetune={**FREE, "freeze_norm": True})
    model, before = train(shards, spec, settings), build(spec, start)
    now, then = model.backbone.stem[1], before.backbone.stem[1]
    assert torch.equal(now.running_mean, then.running_mean)
    assert torch.equal(now.running_var, then.running_var)
    assert not torch.equal(now.weight, then.weight)


def test_stages_are_freed_from_the_last_on(spec: ModelSpec):
    model = build(spec)
    finetune = Finetune(**{**FREE, "freeze": "all", "unfreeze_every": 2})
    frozen = []
    for epoch in range(1, 11):
        start_training(model, finetune, epoch)
        found = [p.requires_grad for s in stages(model) for p in parameters(s.parts)[:1]]
        modes = [s.parts[0].training for s in stages(model)]
        assert found == modes
        frozen.append(found.count(False))
        assert found == sorted(found)
    assert frozen == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert model.head.weight.requires_grad
    assert all(module.training for module in model.modules())


def test_a_run_cut_off_between_unfreezings_ends_as_an_unbroken_one(
    shards: Shards, spec: ModelSpec, config: Config, start: str, tmp_path: Path
):
    finetune = {"freeze": "all", "unfreeze_every": 1, "layer_decay": 0.7, "freeze_norm": False}
    settings = config(epochs=5, weights=start, finetune=finetune)
    unbroken = train(shards, spec, settings)

    def cut(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(shards, spec, settings, checkpoint=checkpoint, on_epoch=cut)
    assert state(train(shards, spec, settings, checkpoint=checkpoint)) == state(unbroken)


def test_rates_fall_towards_the_input_and_follow_the_schedule(spec: ModelSpec, config: Config):
    model = build(spec)
    settings = config(lr=0.08, epochs=3, finetune={**FREE, "layer_decay": 0.5})
    optimizer = make_optimizer(model, settings)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.head.weight)] == rates[id(model.head.bias)] == 0.08
    for distance, stage in enumerate(reversed(stages(model)), 1):
        for parameter in parameters(stage.parts):
            assert rates[id(parameter)] == pytest.approx(0.08 * 0.5**distance)
    assert len(rates) == len(list(model.parameters()))
    highest = [group["lr"] for group in optimizer.param_groups]
    schedule = make_schedule(optimizer, settings, steps=10)
    reached = [group["lr"] for group in optimizer.param_groups]
    for _ in range(29):
        optimizer.step()
        schedule.step()
        now = [group["lr"] for group in optimizer.param_groups]
        reached = [max(pair) for pair in zip(reached, now, strict=True)]
        assert len({round(rate / own, 9) for rate, own in zip(now, highest, strict=True)}) == 1
    assert reached == pytest.approx(highest, rel=0.05)


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny", "vit_b_32"])
def test_only_matrices_and_filters_decay(spec: ModelSpec, config: Config, architecture: str):
    with torch.device("meta"):
        model = of(spec, architecture)
    groups = parameter_groups(model, config())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    layers = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    attention = {n for n, _ in model.named_parameters() if n.endswith("in_proj_weight")}
    assert names == layers | attention


@pytest.mark.parametrize("freeze", [5, "layer1", "stage4"])
def test_a_stage_that_is_not_there_is_named(spec: ModelSpec, freeze: int | str):
    with pytest.raises(TrainingError, match=f"freeze {freeze} .*0 to 4, all, .*stem, stage1"):
        start_training(build(spec), Finetune(**{**FREE, "freeze": freeze}), 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"finetune": {**FREE, "freeze": 1}}, "finetune.freeze 1 needs weights"),
        ({"finetune": {**FREE, "freeze_norm": True}}, "finetune.freeze_norm needs weights"),
        (
            {"weights": "x", "finetune": {**FREE, "freeze": "all", "unfreeze_every": 9}},
            "unfreeze_every 9 exceeds patience 5",
        ),
        ({"weights": "data/model/model.safetensors"}, "cp -r data/model pretrained"),
    ],
)
def test_settings_that_cannot_work_are_refused(config: Config, values: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        config(**values)
