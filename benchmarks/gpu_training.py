"""Seconds to 94 % test accuracy on CIFAR-10 on one GPU: our training loop and a plain one.

python -m benchmarks.gpu_training [--data CIFAR10.tar.gz | FOLDER] [--seeds N] [--target SHARE]
                                  [--set KEY=VALUE ...] [--device cpu --images N --epochs E ...]

Ours: tasks.training as `dvc repro train` runs it, on packed shards, with RECIPE over what
`visionloop init` proposes; --set changes any key, as in `visionloop run`. Its time begins before
the network is built and the images are sent to the GPU, and includes the validation of every epoch
(on 2 % of the images). The peer: the same network, images, recipe and epochs in the shortest loop
there is, with all images normalised on the GPU before its time begins, and nothing else: no
validation, checks, records or kept weights. It knows flips, padding crops and cutout only.

Seconds are those at the end of the first epoch after which the weights have the target on the whole
test set, without test-time augmentation; the test itself is not timed. One epoch of each before
takes the starting of CUDA and, with train.compile, compilation: its seconds are in `warm_up`, and
`with_warm_up` counts them. Medians over the seeds; null where one missed the target.

`utilisation`: the time of steps whose images are on the device already, as a share of the time of
steps that read theirs, by turns. `validating`: validation's share of ours. RECORD is a published
figure of a loop made for this one task, on another GPU: to compare with, not measured here.

Without CUDA it ends at once; --device cpu is for trying it out on few images.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks._cifar import add_data_argument, class_folders, some_images, test_set
from benchmarks._plain_loop import Run, Task, accuracies, finish, peer, weights
from benchmarks._shards import proposed, shards_of
from flows.overrides import parse_overrides
from tasks.data.sources.folders import find_split_files
from tasks.errors import VisionloopError
from tasks.params import apply_overrides, check_params
from tasks.schema import Params, Train
from tasks.training.precision import compile_advice
from tasks.training.to_device import sent
from tasks.training.trainer import Trainer

# airbench94, Keller Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", and its later
# version with the Muon optimizer: one A100, compilation and warm-up not counted.
RECORD = 2.6
BLOCKS, WARM = 8, 5
RECIPE: dict[str, object] = {
    "split.validation": 0.02,
    "train.width": 64,
    "train.depth": 2,
    "train.epochs": 20,
    "train.batch_size": 512,
    "train.lr": 0.4,
    "train.schedule": "one_cycle",
    "train.warmup": 0.25,
    "train.label_smoothing": 0.1,
    "train.grad_clip": 10.0,
    **{f"train.augment.{key}": None for key in ("flip", "shift", "rotate", "scale")},
    **{f"train.augment.{key}": None for key in ("brightness", "contrast", "padding_crop")},
    "train.augment.preset": "light",
    "train.augment.cutout": 0.25,
}


def main() -> None:
    arguments = _arguments()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(
            "error: no CUDA device here; to try it out: python -m benchmarks.gpu_training "
            "--device cpu --images 2000 --test-images 1000 --epochs 4 --target 0.35 "
            "--set train.width=16 --set train.depth=1 --set train.batch_size=64",
            file=sys.stderr,
        )
        sys.exit(os.EX_UNAVAILABLE)
    try:
        overrides = parse_overrides(arguments.set)
        advice = compile_advice() if overrides.get("train.compile") else nullcontext()
        with _task(arguments, overrides) as task, advice:
            _measure(task, arguments)
    except VisionloopError as error:
        sys.exit(f"error: {error}")


@contextmanager
def _task(arguments: argparse.Namespace, overrides: dict[str, object]) -> Iterator[Task]:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        cifar = class_folders(arguments.data, scratch / "cifar").parent
        images = scratch / "images"
        some_images(cifar / "train", images / "train", arguments.images)
        some_images(cifar / "test", images / "test", arguments.test_images)
        params = _params(images, arguments, overrides)
        shards = shards_of(find_split_files(images), images, params, scratch / "shards")
        yield Task(shards, params.train, test_set(images), torch.device(arguments.device))


def _params(images: Path, arguments: argparse.Namespace, overrides: dict[str, object]) -> Params:
    given = {"train.device": arguments.device, "train.devices": 1}
    # A CPU without bf16 instructions is slower by it.
    given["train.precision"] = "bf16" if arguments.device == "cuda" else "fp32"
    given |= {} if arguments.epochs is None else {"train.epochs": arguments.epochs}
    values = apply_overrides(
        proposed(images).model_dump(mode="json", by_alias=True), RECIPE | given | overrides
    )
    values["train"]["patience"] = values["train"]["epochs"]
    return check_params(values)


def _measure(task: Task, arguments: argparse.Namespace) -> None:
    if len(task.train) < BLOCKS * task.config.batch_size:
        sys.exit(
            f"error: {len(task.train)} training images are under {BLOCKS} batches of "
            f"{task.config.batch_size}; give more --images, or a smaller --set train.batch_size"
        )
    trainings = {"ours": ours, "peer": peer}
    short = task.config.model_copy(update={"epochs": 1})
    warm_up = {name: training(task, short).seconds[-1] for name, training in trainings.items()}
    runs: dict[str, list[Run]] = {name: [] for name in trainings}
    for seed in range(arguments.seeds):
        config = task.config.model_copy(update={"seed": seed})
        for name, training in trainings.items():
            runs[name].append(training(task, config))
            _show(f"seed {seed}, {name}", runs[name][-1], arguments.target)
    share = utilisation(task)
    print(f"warm-up: {warm_up['ours']:.1f} s; utilisation {share:.1%}")
    _report(task, runs, warm_up["ours"], share, arguments.target)


def ours(task: Task, config: Train) -> Run:
    """The loop of tasks.training, as `fit` runs it."""
    started, seconds, kept = time.perf_counter(), [], []
    run = Trainer(task.start(config), task.train, task.validation, task.spec, config)
    training = 0.0
    while not run.history.finished:
        epoch = run.one_epoch()
        seconds.append(time.perf_counter() - started)
        training += run.batches.shown / epoch.images_per_second
        kept.append(weights(run.learner.result))
    validating = 1 - training / seconds[-1]
    return Run(seconds, accuracies(task, run.learner.result, kept), validating)


def utilisation(task: Task) -> float:
    """The share of a step's time in which the device does not wait for images."""
    run = Trainer(task.start(task.config), task.train, task.validation, task.spec, task.config)
    steps = run.order(1)
    count = (run.batches.steps - min(WARM, run.batches.steps // 4)) // BLOCKS
    for batches, images in islice(steps, run.batches.steps - count * BLOCKS):
        run.step(batches, images)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for block in range(BLOCKS):
        there = bool(block % 2)
        seconds[there].append(_seconds(run, list(islice(steps, count)), there))
    return min(1.0, median(seconds[True]) / median(seconds[False]))


def _seconds(run: Trainer, steps: list[Any], there: bool) -> float:
    """Of the steps, reading their images, or with those on the device before (`there`)."""
    if there:
        ready = [[sent(next(images), run.device) for _ in step] for step, images in steps]
        steps = [(step, iter(one)) for (step, _), one in zip(steps, ready, strict=True)]
    finish(run.device)
    started = time.perf_counter()
    for batches, images in steps:
        run.step(batches, images)
    finish(run.device)
    return time.perf_counter() - started


def _show(name: str, run: Run, target: float) -> None:
    seconds = run.until(target)
    reached = f"not reached in {run.seconds[-1]:.1f} s" if seconds is None else f"{seconds:.1f} s"
    curve = " ".join(f"{100 * accuracy:.1f}" for accuracy in run.accuracies)
    print(f"{name}: {target:.0%} {reached}; % an epoch: {curve}", flush=True)


def _report(
    task: Task, runs: dict[str, list[Run]], warm_up: float, share: float, target: float
) -> None:
    own, other = (_seconds_to(runs[name], target) for name in ("ours", "peer"))
    line = {
        "benchmark": "gpu_training",
        "ours": own,
        "peer": other,
        "ratio": own and other and own / other,
        "unit": "s",
        "target": target,
        "accuracy": [
            median(a) for a in zip(*(run.accuracies for run in runs["ours"]), strict=True)
        ],
        "warm_up": warm_up,
        "with_warm_up": own and own + warm_up,
        "utilisation": share,
        "validating": median(run.validating for run in runs["ours"]),
        "record": RECORD,
    }
    rounded = {key: _rounded(value) for key, value in line.items()}
    print(json.dumps({**rounded, "device": _device_name(task.device)}))


def _seconds_to(runs: list[Run], target: float) -> float | None:
    seconds = [run.until(target) for run in runs]
    reached = [one for one in seconds if one is not None]
    return median(reached) if len(reached) == len(seconds) else None


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--images", type=int, default=50_000, help="to train on")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, help=f"{RECIPE['train.epochs']} unless given")
    parser.add_argument("--target", type=float, default=0.94, help="test accuracy, 0..1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value")
    return parser.parse_args()


if __name__ == "__main__":
    main()
