"""Time until a sweep is as good as random search: default sampler and pruner against chance.

python -m benchmarks.sweep [--data CIFAR10.tar.gz | FOLDER] [--images N] [--validation V]
                           [--trials T] [--epochs E] [--seeds S] [--first-seed F] [--width W]
                           [--sampler S] [--pruner P]

The peer draws T trials at random and trains each to its end. Ours has the same space, the same
training and as much time as the peer took, with the sampler and pruner of conf/presets/small.yaml.
Compared is the time after which any epoch of any trial has the validation accuracy that the peer
ends with. `ratio` is ours by all the time that the peer searched, the median of the seeds; a seed
that does not get there counts as 1. `ratio_reached` is ours by the time at which the peer had it
itself, which luck may bring early. Today's values lie outside the space: neither starts from them.
The best of some 240 epochs is partly luck: an accuracy on 500 images has a standard error of two
points. 2,000 validate, so that what is compared is mostly how good the trials are.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks._cifar import add_data_argument, class_folders
from tasks.bundle import InputContract
from tasks.data.shards import Shards, open_shards, write_index
from tasks.params import Settings, load_params
from tasks.pixels import statistics
from tasks.tracking import outbox, read_events
from tasks.training.tune import run_trials, sweep_of

PRESET = Path("conf/presets/small.yaml")
SIZE = 32
SPACE = {
    "lr": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
    "weight_decay": {"type": "float", "low": 1e-6, "high": 0.1, "log": True},
    "momentum": {"type": "float", "low": 0.5, "high": 0.99},
    "label_smoothing": {"type": "float", "low": 0.0, "high": 0.4},
    "batch_size": {"type": "int", "low": 16, "high": 256, "log": True},
    "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
}
OUTSIDE = {"lr": 0.0001, "weight_decay": 0.5, "momentum": 0.1, "label_smoothing": 0.9}
OUTSIDE |= {"batch_size": 512}
SEEDS_APART = 1000  # a trial's numbers come from the seed plus its own number


@dataclass(frozen=True)
class Search:
    """Seconds since the start and the best accuracy so far, after each epoch of any trial."""

    curve: list[tuple[float, float]]
    trials: int

    @property
    def best(self) -> float:
        """The best accuracy of all."""
        return self.curve[-1][1]

    @property
    def seconds(self) -> float:
        """Up to the last epoch."""
        return self.curve[-1][0]

    def reaches(self, accuracy: float) -> float | None:
        """Seconds until it is reached; None if it never is."""
        return next((at for at, best in self.curve if best >= accuracy), None)


def main() -> None:
    arguments = _arguments()
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = _shards(class_folders(arguments.data, Path(scratch)), arguments, Path(scratch))
        first = arguments.first_seed
        for seed in range(first, first + arguments.seeds):
            home = Path(scratch) / f"home-{seed}"
            peer = {"trials": arguments.trials, "sampler": "random", "pruner": "none"}
            chance = _search(shards, home / "random", seed, peer, arguments)
            limit: dict[str, object] = {"trials": None, "minutes": chance.seconds / 60}
            chosen = {"sampler": arguments.sampler, "pruner": arguments.pruner}
            limit |= {key: name for key, name in chosen.items() if name}
            pairs.append((_search(shards, home / "default", seed, limit, arguments), chance))
            _say(seed, *pairs[-1])
    _report(pairs)


def _search(
    shards: Shards, home: Path, seed: int, tune: dict[str, object], arguments: argparse.Namespace
) -> Search:
    values: dict[str, object] = {
        "minutes": None,
        "epochs": arguments.epochs,
        "seed": seed * SEEDS_APART,
        "objectives": ["accuracy"],
        "keep": 0,
        "space": SPACE,
    } | tune
    overrides = {f"tune.{key}": value for key, value in values.items()}
    overrides |= {f"train.{key}": value for key, value in OUTSIDE.items()}
    overrides |= {"train.width": arguments.width, "train.patience": arguments.epochs}
    params = load_params(PRESET, overrides)
    settings = Settings(home=home)
    trials = run_trials(sweep_of(params, shards, settings))
    return Search(_curve(settings), len(trials))


def _curve(settings: Settings) -> list[tuple[float, float]]:
    events = [event for run in outbox(settings).iterdir() for event in read_events(run)]
    start = min(event["time"] for event in events)
    name = "validation_accuracy"
    epochs = sorted(
        (event["time"], event["values"][name])
        for event in events
        if event["type"] == "metrics" and name in event["values"]
    )
    best = np.maximum.accumulate([accuracy for _, accuracy in epochs])
    return [((time - start) / 1e3, float(top)) for (time, _), top in zip(epochs, best, strict=True)]


def _shards(root: Path, arguments: argparse.Namespace, scratch: Path) -> Shards:
    """The first images of every class, as the step `prepare` packs them."""
    classes = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    target = scratch / "shards"
    target.mkdir()
    counts = {"train": arguments.images, "validation": arguments.validation, "test": len(classes)}
    start = 0
    for name, count in counts.items():
        each = max(1, count // len(classes))
        paths = [p for c in classes for p in sorted((root / c).iterdir())[start : start + each]]
        start += each
        _pack(target, name, paths, [classes.index(path.parent.name) for path in paths])
    write_index(target, classes, InputContract(size=SIZE, resize="stretch", max_pixels=10_000))
    return open_shards(target)


def _pack(target: Path, name: str, paths: Sequence[Path], labels: Sequence[int]) -> None:
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    hashes = [blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    np.save(target / f"{name}_images.npy", images)
    np.save(target / f"{name}_labels.npy", np.array(labels, np.int64))
    np.save(target / f"{name}_statistics.npy", np.stack([statistics(image) for image in images]))
    np.save(target / f"{name}_hashes.npy", np.array(hashes, "S32"))
    (target / f"{name}_paths.json").write_text(json.dumps([str(path) for path in paths]))


def _say(seed: int, ours: Search, chance: Search) -> None:
    reached = _in_time(ours, chance)
    when = "not reached" if reached is None else f"after {reached:.0f} s"
    print(
        f"seed {seed}: random {chance.best:.4f} in {chance.seconds:.0f} s ({chance.trials} trials, "
        f"first after {chance.reaches(chance.best):.0f} s); ours {when}, ends with {ours.best:.4f} "
        f"({ours.trials} trials)",
        flush=True,
    )


def _in_time(ours: Search, chance: Search) -> float | None:
    """None too if only the trial got there that was running when the time was over."""
    reached = ours.reaches(chance.best)
    return None if reached is None or reached > chance.seconds else reached


def _report(pairs: Sequence[tuple[Search, Search]]) -> None:
    times = [_in_time(ours, chance) for ours, chance in pairs]
    ratios, reached = [], []
    for time, (_, chance) in zip(times, pairs, strict=True):
        taken = chance.seconds if time is None else time
        ratios.append(taken / chance.seconds)
        reached.append(taken / (chance.reaches(chance.best) or chance.seconds))
    line = {
        "benchmark": "sweep",
        "ours": median(r * chance.seconds for r, (_, chance) in zip(ratios, pairs, strict=True)),
        "peer": median(chance.seconds for _, chance in pairs),
        "ratio": median(ratios),
        "ratio_reached": median(reached),
        "seeds_reached": sum(time is not None for time in times),
        "accuracy_ours": median(ours.best for ours, _ in pairs),
        "accuracy_peer": median(chance.best for _, chance in pairs),
    }
    print(json.dumps({k: v if isinstance(v, str) else round(v, 4) for k, v in line.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=1000, help="to train on")
    parser.add_argument("--validation", type=int, default=2000, help="images to validate on")
    parser.add_argument("--trials", type=int, default=27, help="of the random search")
    parser.add_argument("--epochs", type=int, default=9, help="of each trial")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="then the next ones")
    parser.add_argument("--sampler", help="of ours; the preset's when unset")
    parser.add_argument("--pruner", help="of ours; the preset's when unset")
    parser.add_argument("--width", type=int, default=8, help="of resnet_small")
    return parser.parse_args()


if __name__ == "__main__":
    main()
