from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.learner import Learner
from tasks.training.loop import FitResult, fit, predict
from tasks.training.losses import class_counts, training_loss
from tasks.training.models import Classifier, ModelSpec, build, normalise

Config = Callable[..., Train]


def train(shards: Shards, spec: ModelSpec, config: Train) -> tuple[Classifier, FitResult]:
    torch.manual_seed(0)
    model = build(spec)
    return model, fit(model, shards.split("train"), shards.split("validation"), spec, config)


def accuracy(model: nn.Module, shards: Shards, spec: ModelSpec) -> float:
    held_out = shards.split("test")
    return float((predict(model, held_out.images, spec).argmax(1) == held_out.labels).mean())


def test_accumulated_gradients_are_those_of_the_large_batch(
    shards: Shards, spec: ModelSpec, config: Config
):
    split = shards.split("train")
    inputs = normalise(torch.from_numpy(split.images[:60].copy()), spec)
    labels = torch.from_numpy(split.labels[:60])
    learners, settings = [], config(label_smoothing=0.1)
    counts = class_counts(split.labels, 4)
    loss = training_loss(settings.imbalance, settings.label_smoothing, counts)
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))  # batch norms see batches
        learners.append(Learner(model, settings, 10, loss))
    whole, parts = learners
    sums = [
        whole.update([(inputs, labels)], 1, 60, 0),
        parts.update(zip(inputs.split([32, 28]), labels.split([32, 28]), strict=True), 2, 60, 0),
    ]
    for one, other in zip(*sums, strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_accumulation_takes_fewer_steps_and_leaves_no_image_out(
    shards: Shards, spec: ModelSpec, config: Config, monkeypatch: pytest.MonkeyPatch
):
    steps: list[list[int]] = []
    update = Learner.update

    def seen(self: Learner, batches: Iterable, parts: int, images: int, step: int) -> tuple:
        kept = list(batches)
        steps.append([len(inputs) for inputs, _ in kept])
        assert (len(kept), sum(steps[-1])) == (parts, images)
        return update(self, kept, parts, images, step)

    monkeypatch.setattr(Learner, "update", seen)
    train(shards, spec, config(epochs=1, accumulate=3))
    assert len(steps) == 3
    assert sum(map(sum, steps)) == 300
    assert all(len(sizes) == 3 and min(sizes) >= 32 for sizes in steps)


def test_averaged_weights_are_the_ones_validated_and_kept(
    shards: Shards, spec: ModelSpec, config: Config
):
    values = {"epochs": 12, "width": 8, "schedule": "constant", "warmup": 0.0}
    last, _ = train(shards, spec, config(**values))
    model, result = train(shards, spec, config(**values, ema=0.97))
    validation = shards.split("validation")
    logits = torch.from_numpy(predict(model, validation.images, spec)).double()
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(validation.labels))
    assert float(loss) == result.best.validation_loss
    assert accuracy(model, shards, spec) > 0.9
    assert not torch.equal(last.head.weight, model.head.weight)


def test_bf16_learns_as_well_and_keeps_float32_weights(
    shards: Shards, spec: ModelSpec, config: Config
):
    exact, _ = train(shards, spec, config(epochs=10))
    mixed, _ = train(shards, spec, config(epochs=10, precision="bf16"))
    assert all(weight.dtype == torch.float32 for weight in mixed.parameters())
    assert not torch.equal(exact.head.weight, mixed.head.weight)
    assert accuracy(mixed, shards, spec) > 0.9


def test_fp16_on_a_cpu_is_refused(shards: Shards, spec: ModelSpec, config: Config):
    with pytest.raises(TrainingError, match=r"train\.precision is fp16.*CPU.*bf16 or fp32"):
        train(shards, spec, config(precision="fp16"))


def linear(shards: Shards, spec: ModelSpec, config: Train) -> tuple[nn.Module, FitResult]:
    """Compiles in seconds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    return model, fit(model, shards.split("train"), shards.split("validation"), spec, config)


def test_a_compiled_network_learns_the_same(shards: Shards, spec: ModelSpec, config: Config):
    plain, before = linear(shards, spec, config(epochs=2))
    model, result = linear(shards, spec, config(epochs=2, compile=True))
    assert set(model.state_dict()) == set(plain.state_dict())
    losses = [epoch.train_loss for epoch in before.history]
    assert [epoch.train_loss for epoch in result.history] == pytest.approx(losses, rel=1e-2)


def test_a_machine_that_cannot_compile_is_told_the_way_out(
    shards: Shards, spec: ModelSpec, config: Config, monkeypatch: pytest.MonkeyPatch
):
    from torch._inductor import config as inductor

    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", ("/nonexistent/compiler",))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    with pytest.raises(TrainingError, match=r"train\.compile: .*cannot be compiled.*to false"):
        linear(shards, spec, config(epochs=1, compile=True))
    torch._dynamo.reset()
