"""What a training step would do on a GPU, shown without one.

PyTorch's fake tensors know of "cuda" and run every operator of a step but the arithmetic. They
have no autograd threads for it, so the backward pass, which is PyTorch's own, is left out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tasks.data.shards import Shards, ShardSplit
from tasks.schema import Train
from tasks.training import distributed, trainer
from tasks.training.models import ModelSpec, build
from tasks.training.precision import Precision
from tasks.training.trainer import Trainer

Config = Callable[..., Train]
LOOK = 4  # steps
CHANGES = {
    **{"vertical_flip": True, "shear": 5.0, "resized_crop": 0.8, "padding_crop": 0.1},
    **{"saturation": 0.2, "hue": 0.1, "blur": 0.5, "noise": 0.1, "erase": 0.5, "cutout": 0.3},
    **{"mixup": 0.2, "cutmix": 1.0, "mix_probability": 1.0},
}

pytestmark = pytest.mark.skipif(distributed.size() > 1, reason="fake tensors are not gathered")


class Waits(TorchDispatchMode):
    """Keeps the operators for which the host waits until the GPU has done all before them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.copied = 0  # bytes, from the host
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.name().removeprefix("aten::").split(".")[0]
        if name == "is_pinned":
            return False
        if name == "_pin_memory":
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if name == "_to_copy":
            self._copy(name, args[0], torch.device(kwargs.get("device") or args[0].device), kwargs)
        if name == "copy_":
            self._copy(name, args[1], args[0].device, kwargs)
        if name in ("_local_scalar_dense", "nonzero", "masked_select") and args[0].is_cuda:
            self.seen.append(name)
        if name == "_local_scalar_dense":  # there is no number behind it
            return True if args[0].dtype == torch.bool else 1.0
        if name == "_fused_sgd_":  # the one operator that fake tensors lack
            return None
        return func(*args, **kwargs)

    def _copy(self, name: str, given: Tensor, to: torch.device, kwargs: dict[str, Any]) -> None:
        if given.device.type == to.type:
            return
        self.copied += given.nbytes
        pinned = any(given is one for one in self._pinned)
        if not (pinned and kwargs.get("non_blocking") and to.type == "cuda"):
            self.seen.append(f"{name} {given.device.type} to {to.type}")


@contextmanager
def gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> Iterator[Waits]:
    """Tensors on "cuda" can be had, and the device has `free` bytes."""
    monkeypatch.setattr(trainer, "fingerprint", lambda *_: "")  # it reads the weights
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr(Precision, "backward", lambda self, loss: None)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        yield waits


def moved(model: nn.Module) -> nn.Module:
    """The network on the GPU, with gradients as a backward pass would leave them."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None:
                    new = torch.empty_strided(
                        old.size(), old.stride(), dtype=old.dtype, device="cuda"
                    )
                    tensors[name] = nn.Parameter(new) if isinstance(old, nn.Parameter) else new
    return model


def waits_of_steps(
    splits: tuple[ShardSplit, ShardSplit],
    spec: ModelSpec,
    config: Train,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
) -> tuple[list[list[str]], int]:
    """Of each of the first LOOK steps what it waits for, and the bytes that one sends."""
    model, sent = build(spec), 0
    with gpu(monkeypatch, free):
        run = Trainer(moved(model), *splits, spec, config)
    monkeypatch.setattr(
        run.learner.optimizer, "zero_grad", lambda set_to_none: _gradients(run.learner.model)
    )
    steps, waits = run.order(1), []
    for _ in range(LOOK):
        step = next(steps)
        with gpu(monkeypatch, free) as seen:
            run.step(*step)
        waits.append(seen.seen)
        sent = seen.copied
    return waits, sent


def _gradients(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)


@pytest.mark.parametrize(
    ("free", "values"),
    [
        (10**9, {"ema": 0.99, "augment": {"preset": "light"}}),
        (1, {"augment": {"preset": "light"}}),  # bytes: the images are read batch by batch
        (10**9, {"optimizer": "adamw", "augment": {"preset": "standard", **CHANGES}}),
        (10**9, {"imbalance": {"class_weights": "inverse"}, "accumulate": 2, "batch_size": 16}),
        (10**9, {"imbalance": {"class_weights": "effective_number", "focal_gamma": 2.0}}),
        (10**9, {"imbalance": {"logit_adjustment": 1.0}}),
    ],
    ids=["light", "read", "changed", "weighted", "focal", "adjusted"],
)
def test_a_step_on_a_gpu_waits_for_nothing_until_steps_are_looked_at(
    free: int,
    values: dict[str, Any],
    shards: Shards,
    spec: ModelSpec,
    train_values: dict[str, Any],
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
):
    for section in ("augment", "imbalance"):
        if section in values:
            values = values | {section: train_values[section] | values[section]}
    splits = shards.split("train"), shards.split("validation")
    settings = config(**values, log_steps=LOOK)
    waits, _ = waits_of_steps(splits, spec, settings, monkeypatch, free)
    assert waits[:-1] == [[]] * (LOOK - 1)
    assert "_local_scalar_dense" in waits[-1]  # Watch reads the losses of all four


def test_images_that_are_on_the_gpu_are_not_sent_again(
    shards: Shards, spec: ModelSpec, config: Config, monkeypatch: pytest.MonkeyPatch
):
    split, validation = shards.split("train"), shards.split("validation")
    margin = np.pad(split.images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    splits = replace(split, images=margin), validation
    sent = {}
    for free in (4 * margin.nbytes, 4 * margin.nbytes - 1):
        settings = config(log_steps=LOOK, batch_size=30)
        _, sent[free] = waits_of_steps(splits, spec, settings, monkeypatch, free)
    kept, read = sent.values()
    assert read - kept == 30 * margin[0].nbytes - 30 * 8  # a batch's pixels; its rows instead
