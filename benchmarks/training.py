"""CIFAR-10 accuracy after equal time on the same cores: our default recipe and the usual loop.

python -m benchmarks.training [--data CIFAR10.tar.gz | FOLDER] [--images N] [--seconds S]
                              [--seeds N] [--plot FILE.svg]

Ours: what `visionloop init` proposes for the folder of images, with as many epochs as fill the
time. Ingest, cleaning, split, prepare and two epochs to learn how long one takes count as time; the
epoch that is kept is chosen on images held out of the N. The peer: ImageFolder and DataLoader with
two workers, random crop and flip, a ResNet-18 with a 3x3 stem, SGD with momentum 0.9 at 0.02, a
tenth of it after half and a hundredth after three quarters of the time; it trains on all N and is
measured as it is when time is up. (At the usual 0.1 it is far worse in so few steps.)

Each training is a process of its own, ours and the peer in turn. Figures are of the whole test
set; points of the curve on the way, of every tenth image. JSON: `ours` and `peer` are accuracies
in percent, `points` is the mean difference of the seeds and `interval` its 95 % t interval.
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._cifar import add_data_argument, class_folders, some_images, test_set
from benchmarks._shards import proposed, shards_of
from tasks.data.sources.folders import find_split_files
from tasks.evaluation.fold_scores import interval
from tasks.schema import Params
from tasks.training.loop import fit, predict
from tasks.training.models import build, channel_moments, spec_for

SIZE, BATCH, WORKERS, SNAPSHOTS = 32, 128, 2, 5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PEER_LR = 0.02
SHARE = 0.97  # of the time left that the epochs are planned to fill
EVERY = 10  # of the test images, for points on the way
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Point:
    """Accuracy (0..1) on test images, `seconds` after the start."""

    seconds: float
    accuracy: float


def main() -> None:
    arguments = _arguments()
    processes = multiprocessing.get_context("spawn")
    curves: dict[str, list[list[Point]]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        cifar = class_folders(arguments.data, Path(name) / "cifar").parent
        some_images(cifar / "train", images / "train", arguments.images)
        shutil.copytree(cifar / "test", images / "test")
        for seed in range(arguments.seeds):
            for which, train in (("ours", ours), ("peer", peer)):
                with ProcessPoolExecutor(1, mp_context=processes) as pool:
                    curve = pool.submit(train, images, arguments.seconds, seed).result()
                curves[which].append(curve)
                last = curve[-1]
                print(
                    f"seed {seed}, {which}: {last.accuracy:.2%} after {last.seconds:.0f} s",
                    flush=True,
                )
    if arguments.plot:
        _plot(curves, arguments.plot)
    _report(curves)


def ours(images: Path, seconds: float, seed: int) -> list[Point]:
    """Our curve; its last point is of the weights that training ends with."""
    found, params = find_split_files(images), _params(images, seed)
    snapshots: list[tuple[float, Weights]] = []
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        shards = shards_of(found, images, params, Path(scratch) / "shards")
        train, validation = shards.split("train"), shards.split("validation")
        spec = spec_for(shards, params.train, channel_moments(train.images))

        def trained(epochs: int) -> nn.Module:
            torch.manual_seed(seed)
            model = build(spec)
            snapshots.clear()

            def keep(_: object) -> None:
                copy = {name: value.clone() for name, value in model.state_dict().items()}
                snapshots.append((time.perf_counter() - started, copy))

            config = params.train.model_copy(update={"epochs": epochs, "patience": epochs})
            fit(model, train, validation, spec, config, on_epoch=keep)
            return model

        trained(2)
        epoch = snapshots[1][0] - snapshots[0][0]
        left = seconds - (time.perf_counter() - started)
        model = trained(max(1, int(SHARE * left / epoch)))
        taken = time.perf_counter() - started
    pixels, labels = test_set(images)
    every = slice(None, None, EVERY)
    points = []
    final = {name: value.clone() for name, value in model.state_dict().items()}
    for at, weights in snapshots:
        model.load_state_dict(weights)
        accuracy = (predict(model, pixels[every], spec).argmax(1) == labels[every]).mean()
        points.append(Point(at, float(accuracy)))
    model.load_state_dict(final)
    accuracy = (predict(model, pixels, spec).argmax(1) == labels).mean()
    return [*points, Point(taken, float(accuracy))]


def _params(images: Path, seed: int) -> Params:
    params = proposed(images)
    train = params.train.model_copy(update={"seed": seed, "device": "cpu"})
    return params.model_copy(update={"train": train})


def peer(images: Path, seconds: float, seed: int) -> list[Point]:
    """The usual loop's curve; its last point is of the weights when time is up."""
    torch.manual_seed(seed)
    model = _resnet18()
    optimizer = torch.optim.SGD(model.parameters(), lr=PEER_LR, momentum=0.9, weight_decay=5e-4)
    snapshots: list[tuple[float, Weights]] = []
    started = time.perf_counter()
    batches = _usual_batches(images / "train")
    while (share := (time.perf_counter() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEER_LR * (1 if share < 0.5 else 0.1 if share < 0.75 else 0.01)
        inputs, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if share >= (len(snapshots) + 1) / SNAPSHOTS:
            copy = {name: value.clone() for name, value in model.state_dict().items()}
            snapshots.append((time.perf_counter() - started, copy))
    taken = time.perf_counter() - started
    pixels, labels = test_set(images)
    final = _accuracy(model, pixels, labels)
    points = []
    for at, weights in snapshots:
        model.load_state_dict(weights)
        points.append(Point(at, _accuracy(model, pixels[::EVERY], labels[::EVERY])))
    return [*points, Point(taken, final)]


def _resnet18() -> nn.Module:
    from torchvision.models import resnet18

    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    model.train()
    return model


def _usual_batches(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches without end, crop and flip as everybody writes them."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomCrop(SIZE, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    files = ImageFolder(str(folder), transform)
    loader = DataLoader(
        files, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    while True:
        yield from loader


def _accuracy(model: nn.Module, pixels: Any, labels: Any) -> float:
    model.eval()
    right = 0
    with torch.inference_mode():
        for at in range(0, len(pixels), BATCH):
            batch = torch.from_numpy(pixels[at : at + BATCH]).permute(0, 3, 1, 2) / 255
            inputs = (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            right += int((model(inputs).argmax(1).numpy() == labels[at : at + BATCH]).sum())
    return right / len(pixels)


def _plot(curves: dict[str, list[list[Point]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")  # files, no window
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for which, colour in (("ours", "tab:blue"), ("peer", "tab:orange")):
        for seed, curve in enumerate(curves[which]):
            label = {"ours": "Visionloop", "peer": "ImageFolder, ResNet-18"}[which]
            axes.plot(
                [point.seconds for point in curve],
                [100 * point.accuracy for point in curve],
                marker="." if which == "ours" else "o",
                color=colour,
                label=label if seed == 0 else None,
            )
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("CIFAR-10 test accuracy, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
    print(f"the plot is in {file}")


def _report(curves: dict[str, list[list[Point]]]) -> None:
    last = {which: [100 * seed[-1].accuracy for seed in seeds] for which, seeds in curves.items()}
    points = [one - other for one, other in zip(last["ours"], last["peer"], strict=True)]
    line = {
        "benchmark": "training",
        "ours": round(float(np.mean(last["ours"])), 2),
        "peer": round(float(np.mean(last["peer"])), 2),
        "points": round(float(np.mean(points)), 2),
        "interval": [round(bound, 2) for bound in interval(points, 0.95)[1:]],
    }
    print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=10_000, help="to train on")
    parser.add_argument("--seconds", type=float, default=240, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="write the curves to this SVG, PNG or PDF file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
