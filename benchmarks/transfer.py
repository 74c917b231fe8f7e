"""Macro-F1 on magnetic tiles when training starts from CIFAR-10 weights, and from random ones.

python -m benchmarks.transfer [--data CIFAR10.tar.gz | FOLDER] [--tiles TILES.tar.gz | FOLDER]
    [--images N] [--pretrain-epochs N] [--weights FOLDER] [--epochs N] [--splits N]
    [--first-split N] [--rate LR] [--random-rate LR]

A resnet_small learns N images of CIFAR-10. Then the magnetic tiles (1,344 images of six classes,
at 64x64) are split anew for every seed, and the network that `visionloop init` proposes for them is
trained twice on the same images, in turn: from those weights (`train.weights`, nothing frozen) and
from random ones, each at its own rate (--rate, --random-rate), all else alike, and for as many
epochs, so in the same time; the processor's is printed. The rates were chosen by macro-F1 on the
validation images of other splits (--first-split 100). The epoch that is kept is the one of the best
macro-F1 on validation images (`train.keep_by`). Pretraining is not counted: it is done once;
--weights takes the outcome of an earlier run, or puts it there.

JSON: `ours` and `peer` are macro-F1 on the test split, the means over the splits; `gain` is
the mean of the differences and `interval` its 95 % t interval.
"""

import argparse
import json
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score, recall_score

from benchmarks._cifar import add_data_argument, class_folders, images_folder, some_images
from benchmarks._shards import proposed, shards_of
from tasks.data.shards import Shards
from tasks.data.sources.folders import find_files
from tasks.evaluation.fold_scores import interval
from tasks.schema import Params, Train
from tasks.training.loop import fit, predict
from tasks.training.models import (
    Classifier,
    ModelSpec,
    build,
    channel_moments,
    save_model,
    spec_for,
)

TILES = Path("../shared/datasets/magnetic-tile.tar.gz")


@dataclass(frozen=True)
class Outcome:
    """On the test split, but one; `seconds` are the processor's, of training."""

    validation_macro_f1: float  # of the epoch that is kept
    macro_f1: float
    worst_recall: float
    seconds: float


def main() -> None:
    arguments = _arguments()
    found: dict[str, list[Outcome]] = {"CIFAR-10 weights": [], "random weights": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tiles = images_folder(arguments.tiles, scratch / "tiles")
        params = proposed(tiles)
        weights = arguments.weights or scratch / "weights"
        if not weights.exists():
            _pretrain(params, arguments, scratch, weights)
        same = {"epochs": arguments.epochs, "patience": arguments.epochs, "keep_by": "macro_f1"}
        starts: dict[str, dict[str, object]] = {
            "CIFAR-10 weights": {"weights": str(weights), "lr": arguments.rate},
            "random weights": {"weights": None, "lr": arguments.random_rate},
        }
        for seed in range(arguments.first_split, arguments.first_split + arguments.splits):
            shards = _split(tiles, params, scratch / str(seed), seed)
            for title, start in starts.items():
                config = params.train.model_copy(update=same | start | {"seed": seed})
                outcome = _score(shards, config)
                found[title].append(outcome)
                print(f"split {seed}, {title}: {outcome}", flush=True)
    _report(found)


def _pretrain(params: Params, arguments: argparse.Namespace, scratch: Path, target: Path) -> None:
    """Write the weights of the tiles' network, trained on CIFAR-10, to the directory `target`."""
    train = class_folders(arguments.data, scratch / "cifar")
    images = some_images(train, scratch / "images", arguments.images)
    own = proposed(images)
    same = {key: getattr(params.train, key) for key in ("architecture", "width", "depth")}
    changes = {**same, "epochs": arguments.pretrain_epochs, "patience": arguments.pretrain_epochs}
    config = own.train.model_copy(update=changes)
    shards = shards_of(find_files(images), images, own, scratch / "pretrain")
    model, spec = _trained(shards, config)
    predicted = predict(model, shards.split("test").images, spec).argmax(1)
    accuracy = (predicted == shards.split("test").labels).mean()
    print(f"pretrained on {arguments.images:,} images: {accuracy:.1%} of CIFAR-10", flush=True)
    save_model(target, model, spec)


def _split(tiles: Path, params: Params, target: Path, seed: int) -> Shards:
    split = params.split.model_copy(update={"seed": seed})
    return shards_of(find_files(tiles), tiles, params.model_copy(update={"split": split}), target)


def _score(shards: Shards, config: Train) -> Outcome:
    started = time.process_time()
    model, spec = _trained(shards, config)
    seconds = time.process_time() - started
    f1 = {}
    for name in ("validation", "test"):
        split = shards.split(name)
        predicted = predict(model, split.images, spec).argmax(1)
        f1[name] = round(float(f1_score(split.labels, predicted, average="macro")), 4)
    recalls = recall_score(split.labels, predicted, average=None, zero_division=0)
    worst = round(float(recalls.min()), 4)
    return Outcome(f1["validation"], f1["test"], worst, round(seconds, 1))


def _trained(shards: Shards, config: Train) -> tuple[Classifier, ModelSpec]:
    train = shards.split("train")
    spec = spec_for(shards, config, channel_moments(train.images))
    torch.manual_seed(config.seed)
    model = build(spec, config.weights)
    fit(model, train, shards.split("validation"), spec, config)
    return model, spec


def _report(found: dict[str, list[Outcome]]) -> None:
    print(f"\n{'magnetic tiles':18}  macro-F1         worst recall     validation  seconds")
    for title, outcomes in found.items():
        table = np.array([astuple(outcome) for outcome in outcomes])
        (validation, f1, worst, seconds), spread = table.mean(0), table.std(0)
        scores = f"{f1:.3f} ± {spread[1]:.3f}    {worst:.3f} ± {spread[2]:.3f}"
        print(f"{title:18}  {scores}    {validation:.3f}       {seconds:.0f}")
    ours, peer = ([o.macro_f1 for o in outcomes] for outcomes in found.values())
    gain = interval([one - other for one, other in zip(ours, peer, strict=True)], 0.95)
    line = {
        "benchmark": "transfer",
        "ours": round(float(np.mean(ours)), 4),
        "peer": round(float(np.mean(peer)), 4),
        "gain": round(gain.mean, 4),
        "interval": [round(gain.low, 4), round(gain.high, 4)],
    }
    print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--tiles", type=Path, default=TILES, help="archive or folder")
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10, to pretrain on")
    parser.add_argument("--pretrain-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20, help="on the tiles, from either start")
    parser.add_argument("--weights", type=Path, help="pretrained; made there when it is not there")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--first-split", type=int, default=0, help="seed of the first")
    parser.add_argument("--rate", type=float, default=0.001, help="from CIFAR-10 weights")
    parser.add_argument("--random-rate", type=float, default=0.001, help="from random weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
