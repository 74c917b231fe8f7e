from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.loop import Epoch, FitResult, StepHealth, fit
from tasks.training.models import Classifier, ModelSpec, build

Config = Callable[..., Train]
STEPS = 9  # of an epoch: 300 images in batches of 32


def train(
    shards: Shards, spec: ModelSpec, config: Train, **options: Any
) -> tuple[Classifier, FitResult]:
    torch.manual_seed(0)
    model = build(spec)
    splits = shards.split("train"), shards.split("validation")
    return model, fit(model, *splits, spec, config, **options)


class Failing:
    """Cross-entropy that is `value` from its `first` call to its `last` (from 1)."""

    def __init__(self, value: float, first: int, last: int) -> None:
        self.value, self.first, self.last, self.calls = value, first, last, 0

    def __call__(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        self.calls += 1
        loss = F.cross_entropy(logits, labels)
        return loss * self.value if self.first <= self.calls <= self.last else loss


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (1e6, "e+0")])
def test_it_stops_at_the_step_it_shows(
    shards: Shards, spec: ModelSpec, config: Config, value: float, shown: str
):
    loss = Failing(value, STEPS + 4, 99)
    with pytest.raises(TrainingError) as raised:
        train(shards, spec, config(schedule="constant", warmup=0.0), loss=loss)
    message = str(raised.value)
    assert f"diverged in epoch 2, step 4 of {STEPS}: loss " in message
    assert shown in message.split(", gradient norm")[0]
    assert "learning rate 0.1;" in message
    assert "its 33 images begin with " in message
    assert ".png" in message
    assert "try train.lr 0.01" in message
    assert loss.calls == STEPS + 4


def test_the_images_named_are_those_of_the_step(shards: Shards, spec: ModelSpec, config: Config):
    seen: list[bytes] = []

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        seen.append(labels.numpy().tobytes())
        return F.cross_entropy(logits, labels) * float("nan")

    with pytest.raises(TrainingError) as raised:
        train(shards, spec, config(), loss=loss)
    named = str(raised.value).split("begin with ")[1].split(";")[0].split(", ")
    split = shards.split("train")
    labels = [split.labels[split.paths.index(name)] for name in named]
    assert torch.tensor(labels).numpy().tobytes() == seen[0][: 8 * len(named)]


def test_stepping_back_repeats_the_epoch_at_a_quarter_of_the_rate(
    shards: Shards,
    spec: ModelSpec,
    config: Config,
    caplog: pytest.LogCaptureFixture,
):
    settings = config(
        on_divergence="step_back", schedule="constant", warmup=0.0, log_steps=1, epochs=3
    )
    seen: list[StepHealth] = []
    loss = Failing(float("nan"), STEPS + 4, STEPS + 4)
    _, result = train(shards, spec, settings, loss=loss, on_step=seen.append)
    rates = [health.lr for health in seen]
    assert rates == [0.1] * (STEPS + 3) + [0.025] * (2 * STEPS)
    assert [epoch.lr for epoch in result.history] == [0.1, 0.025, 0.025]
    assert len(result.step_backs) == 1
    assert "epoch 2, step 4" in result.step_backs[0]
    assert "0.25 of the learning rate (1 of at most 3)" in caplog.text
    assert all(health.loss == health.loss for health in seen)


def test_the_weights_go_back_to_the_start_of_the_epoch(
    shards: Shards, spec: ModelSpec, config: Config
):
    """One bad step at the end of epoch 1 = a run that had a quarter of the rate from the start."""
    values = {"schedule": "constant", "warmup": 0.0, "epochs": 2, "ema": 0.9}
    slow, _ = train(shards, spec, config(**values, lr=0.025), loss=Failing(1, 0, 0))
    loss = Failing(float("inf"), STEPS, STEPS)
    back, _ = train(shards, spec, config(**values, on_divergence="step_back"), loss=loss)
    for name, value in slow.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_stepping_back_has_an_end(shards: Shards, spec: ModelSpec, config: Config):
    loss = Failing(float("nan"), STEPS + 1, 10**6)
    with pytest.raises(TrainingError, match=r"diverged in epoch 2, step 1 .*after 3 steps back"):
        train(shards, spec, config(on_divergence="step_back"), loss=loss)
    assert loss.calls == STEPS + 4


def test_a_run_cut_off_after_a_step_back_ends_as_an_unbroken_one(
    shards: Shards, spec: ModelSpec, config: Config, tmp_path: Path
):
    # too high a rate for real: weight decay multiplies the weights by more than 1
    settings = config(
        lr=4.0, weight_decay=1.0, on_divergence="step_back", epochs=4, checkpoint_seconds=1e-6
    )
    whole, expected = train(shards, spec, settings)
    assert expected.step_backs
    checkpoint = tmp_path / "checkpoint.pt"

    def cut(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(shards, spec, settings, checkpoint=checkpoint, on_epoch=cut)
    resumed, result = train(shards, spec, settings, checkpoint=checkpoint)
    assert result == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_what_is_measured_between_steps_is_right(
    shards: Shards, spec: ModelSpec, config: Config, caplog: pytest.LogCaptureFixture
):
    seen: list[StepHealth] = []
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def kept(parameters: Any, largest: float) -> Tensor:
        norms.append(float(clip(parameters, largest)))
        return torch.tensor(norms[-1])

    settings = config(epochs=2, log_steps=9, schedule="constant", warmup=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", kept)
        _, result = train(shards, spec, settings, on_step=seen.append)
    assert [health.step for health in seen] == [9, 18]
    for number, (health, epoch) in enumerate(zip(seen, result.history, strict=True)):
        assert health.loss == epoch.train_loss
        expected = sum(norms[9 * number : 9 * number + 9]) / 9
        assert health.gradient_norm == epoch.gradient_norm == pytest.approx(expected, rel=1e-6)
        assert health.lr == epoch.lr == 0.1
        assert health.images_per_second > 0
        assert 50 < health.memory_mb < 100_000
