"""What the two loops of benchmarks.gpu_training train on and leave, and the plain one of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from tasks.data.shards import Shards
from tasks.schema import Recipe, Train
from tasks.training.loop import predict
from tasks.training.models import build, channel_moments, normalise, spec_for
from tasks.training.precision import compiled

LabelledPixels = tuple[Any, Any]  # uint8 N×S×S×3, int64 N


@dataclass(frozen=True)
class Run:
    """One training: seconds and test accuracy at the end of each epoch, and of validation."""

    seconds: list[float]
    accuracies: list[float]
    validating: float = 0.0

    def until(self, target: float) -> float | None:
        """Seconds to the first epoch with the target, if there is one."""
        reached = zip(self.seconds, self.accuracies, strict=True)
        return next((seconds for seconds, accuracy in reached if accuracy >= target), None)


class Task:
    """The images and settings that both loops train with."""

    def __init__(
        self, shards: Shards, config: Train, test: LabelledPixels, device: torch.device
    ) -> None:
        self.device, self.config = device, config
        self.train, self.validation = shards.split("train"), shards.split("validation")
        self.spec = spec_for(shards, config, channel_moments(self.train.images))
        self.pixels, self.labels = test

    def start(self, config: Train) -> nn.Module:
        """The network, with the weights of the seed."""
        torch.manual_seed(config.seed)
        return build(self.spec).to(self.device)

    def accuracy(self, model: nn.Module) -> float:
        """Of the whole test set, 0..1."""
        logits = predict(model, self.pixels, self.spec)
        return float((logits.argmax(1) == self.labels).mean())


def peer(task: Task, config: Train) -> Run:
    """The shortest loop that trains the same network by the same recipe."""
    pixels, labels = _on_device(task)
    started, seconds, kept = time.perf_counter(), [], []
    model = task.start(config).train()
    network = compiled(model) if config.compile else model
    count, batch = len(labels), config.batch_size
    steps = max(1, count // batch)
    optimizer = torch.optim.SGD(
        model.parameters(),
        config.lr,
        config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
        fused=True,
    )
    total = config.epochs * steps
    rates = OneCycleLR(optimizer, config.lr, total, pct_start=config.warmup, cycle_momentum=False)
    change, mixed = changes(config.augment.recipe, task.spec.size), config.precision != "fp32"
    for _ in range(config.epochs):
        order = torch.randperm(count, device=task.device)
        for rows in order[: steps * batch].tensor_split(steps):
            with torch.autocast(task.device.type, torch.bfloat16, enabled=mixed):
                logits = network(change(pixels, rows))
            loss = F.cross_entropy(
                logits.float(), labels[rows], label_smoothing=config.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        finish(task.device)
        seconds.append(time.perf_counter() - started)
        kept.append(weights(model))
    return Run(seconds, accuracies(task, model, kept))


def _on_device(task: Task) -> tuple[Tensor, Tensor]:
    """All training images, normalised float N×3×S×S, and labels, int64 N, on the device."""
    pixels = torch.from_numpy(task.train.images[:].copy()).to(task.device)
    labels = torch.from_numpy(task.train.labels).to(task.device)
    normalised = normalise(pixels, task.spec)
    finish(task.device)
    return normalised, labels


def changes(recipe: Recipe, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Of all images N×3×S×S and rows: those, each cropped, flipped and cut at random."""
    margin, hole = round(recipe.padding_crop * size), round(recipe.cutout * size)
    padded: list[Tensor] = []

    def change(pixels: Tensor, rows: Tensor) -> Tensor:
        device, count = pixels.device, len(rows)
        if not padded:
            padded.append(F.pad(pixels, (margin,) * 4, mode="reflect"))
        down, right = torch.randint(2 * margin + 1, (2, count), device=device)
        places = padded[0].unfold(2, size, 1).unfold(3, size, 1)
        images = places[rows, :, down, right]
        mirrored = torch.rand(count, 1, 1, 1, device=device) < 0.5 * recipe.flip
        images = torch.where(mirrored, images.flip(3), images)
        if hole:
            side = torch.arange(size, device=device)
            corners = torch.randint(size, (2, count, 1), device=device) - hole // 2
            inside = (side >= corners) & (side < corners + hole)
            images = images.masked_fill((inside[0, :, :, None] & inside[1, :, None, :])[:, None], 0)
        return images.contiguous(memory_format=torch.channels_last)

    return change


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy, where the network is."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def accuracies(task: Task, model: nn.Module, kept: list[dict[str, Tensor]]) -> list[float]:
    """On the test set, of the network with each of the weights."""
    accuracies = []
    for one in kept:
        model.load_state_dict(one)
        accuracies.append(task.accuracy(model))
    return accuracies


def finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
