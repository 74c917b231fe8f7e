"""Remedies for classes of unequal size against plain cross-entropy: macro-F1 and worst recall.

python -m benchmarks.imbalance [--data CIFAR10.tar.gz | FOLDER] [--tiles TILES.tar.gz | FOLDER]
    [--seeds N] [--epochs N] [--largest N] [--test-images N] [--only NAME ...]

Two sets, through our own steps (ingest, clean, split, prepare): magnetic-tile surface defects,
1,344 images of six classes, 32 to 952 each, 64², every seed another split; and a long-tailed
CIFAR-10, whose classes go from --largest images down to a hundredth of it (Cui et al. 2019),
every seed other images, tested on as many of every class. Every remedy starts from the same
weights and is shown as many images, so over- and undersampling take fewer or more epochs. The
epoch that is kept is chosen on validation images, which are as unequal as the training images.

The JSON: `ours` and `peer` are the macro-F1 of the best remedy (over both sets) and of plain
cross-entropy, the means over sets and seeds; `sets` has all figures.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score, recall_score

from benchmarks._cifar import add_data_argument, class_folders, images_folder
from benchmarks._shards import shards_of
from tasks.data.shards import Shards
from tasks.data.sources.folders import find_files, find_split_files
from tasks.params import load_params
from tasks.schema import Imbalance, Train
from tasks.training.loop import fit, predict
from tasks.training.models import build, channel_moments, spec_for
from tasks.training.sampling import EpochOrder

TILES = Path("../shared/datasets/magnetic-tile.tar.gz")
PRESET = Path("conf/presets/small.yaml")
RATIO = 100
PLAIN = "cross-entropy"
REMEDIES: dict[str, dict[str, object]] = {
    PLAIN: {},
    "oversampling": {"sampling": "oversample"},
    "undersampling": {"sampling": "undersample"},
    "inverse weights": {"class_weights": "inverse"},
    "effective number": {"class_weights": "effective_number"},
    "focal": {"focal_gamma": 2.0},
    "effective number + focal": {"class_weights": "effective_number", "focal_gamma": 2.0},
    "logit adjustment": {"logit_adjustment": 1.0},
}
Scores = tuple[float, float]  # macro-F1, recall of the worst class


@dataclass(frozen=True)
class Sizes:
    """How much is trained, and on how many images."""

    epochs: int
    largest: int
    test_images: int


def main() -> None:
    arguments = _arguments()
    sizes = Sizes(arguments.epochs, arguments.largest, arguments.test_images)
    found: dict[str, dict[str, list[Scores]]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        cifar = class_folders(arguments.data, scratch / "cifar").parent
        tiles = images_folder(arguments.tiles, scratch / "tiles")
        for seed in range(arguments.seeds):
            for title, shards in _sets(cifar, tiles, scratch / str(seed), seed, sizes):
                for remedy in arguments.only:
                    scores = _scores(shards, REMEDIES[remedy], seed, sizes.epochs)
                    found.setdefault(title, {}).setdefault(remedy, []).append(scores)
    _report(found)


def _sets(
    cifar: Path, tiles: Path, scratch: Path, seed: int, sizes: Sizes
) -> Iterator[tuple[str, Shards]]:
    own = {"split.seed": seed, "prepare.resize": "letterbox"}
    params = load_params(PRESET, own | {"prepare.size": 64})
    yield "magnetic-tile", shards_of(find_files(tiles), tiles, params, scratch / "tiles")
    tailed = _long_tailed(cifar, scratch / "images", seed, sizes)
    params = load_params(PRESET, own | {"prepare.size": 32})
    found = find_split_files(tailed)
    yield "long-tailed CIFAR-10", shards_of(found, tailed, params, scratch / "cifar")


def _long_tailed(cifar: Path, target: Path, seed: int, sizes: Sizes) -> Path:
    """Copies as split folders: n_c = largest · RATIO^(−c/(C−1)) to train on, all alike to test.

    Validation has a fifth as many of each class as training, two or more.
    """
    generator = np.random.default_rng(seed)
    classes = sorted(folder.name for folder in (cifar / "train").iterdir())
    for index, label in enumerate(classes):
        count = round(sizes.largest * RATIO ** (-index / (len(classes) - 1)))
        chosen = _some(cifar / "train" / label, count + max(2, count // 5), generator)
        tested = _some(cifar / "test" / label, sizes.test_images // len(classes), generator)
        parts = {"train": chosen[:count], "val": chosen[count:], "test": tested}
        for split, files in parts.items():
            folder = target / split / label
            folder.mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder)
    return target


def _some(folder: Path, count: int, generator: np.random.Generator) -> list[Path]:
    """`count` files of a class in random order, or all when it has fewer."""
    files = sorted(folder.glob("*.jpg"))
    return [files[number] for number in generator.permutation(len(files))[:count]]


def _scores(shards: Shards, remedy: dict[str, object], seed: int, epochs: int) -> Scores:
    config = _config(shards, remedy, seed, epochs)
    train, validation, test = (shards.split(name) for name in ("train", "validation", "test"))
    spec = spec_for(shards, config, channel_moments(train.images))
    torch.manual_seed(seed)
    model = build(spec)
    fit(model, train, validation, spec, config)
    predicted = predict(model, test.images, spec).argmax(1)
    recalls = recall_score(test.labels, predicted, average=None, zero_division=0)
    return float(f1_score(test.labels, predicted, average="macro")), float(recalls.min())


def _config(shards: Shards, remedy: dict[str, object], seed: int, epochs: int) -> Train:
    """The preset with the remedy, and as many epochs as show as many images as without it."""
    train = shards.split("train")
    values: dict[str, Any] = load_params(PRESET).train.model_dump()
    imbalance = Imbalance.model_validate(values["imbalance"] | remedy)
    shown = len(EpochOrder(train.labels, imbalance.sampling, train.weights))
    same = max(1, round(epochs * len(train) / shown))
    values |= {"imbalance": imbalance.model_dump(), "seed": seed, "epochs": same, "patience": same}
    values["augment"] |= {"flip": True}
    return Train.model_validate(values)


def _report(found: dict[str, dict[str, list[Scores]]]) -> None:
    means: dict[str, list[float]] = {}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for title, remedies in found.items():
        print(f"\n{title:26}  macro-F1         recall of the worst class")
        for remedy, scores in remedies.items():
            f1, worst = np.array(scores).T
            print(
                f"{remedy:26}  {f1.mean():.3f} ± {f1.std():.3f}    "
                f"{worst.mean():.3f} ± {worst.std():.3f}"
            )
            means.setdefault(remedy, []).append(float(f1.mean()))
            row = {"macro_f1": round(f1.mean(), 4), "worst_recall": round(worst.mean(), 4)}
            figures.setdefault(title, {})[remedy] = row
    overall = {remedy: float(np.mean(values)) for remedy, values in means.items()}
    best = max(overall, key=lambda remedy: overall[remedy])
    ours, peer = overall[best], overall[PLAIN]
    line = {"benchmark": "imbalance", "ours": round(ours, 4), "peer": round(peer, 4)}
    print(json.dumps(line | {"ratio": round(ours / peer, 3), "best": best, "sets": figures}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--tiles", type=Path, default=TILES, help="archive or folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="of plain cross-entropy")
    parser.add_argument("--largest", type=int, default=2_000, help="images of CIFAR's first class")
    parser.add_argument("--test-images", type=int, default=10_000, help="of CIFAR, all classes")
    parser.add_argument("--only", nargs="+", choices=REMEDIES, default=list(REMEDIES))
    arguments = parser.parse_args()
    if PLAIN not in arguments.only:
        arguments.only = [PLAIN, *arguments.only]
    return arguments


if __name__ == "__main__":
    main()
