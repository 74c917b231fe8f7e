"""Remedies for classes of unequal size against plain cross-entropy: macro-F1 and worst recall.

python -m benchmarks.imbalance [--data CIFAR10.tar.gz | FOLDER] [--tiles TILES.tar.gz | FOLDER]
    [--seeds N] [--first-seed N] [--epochs N] [--largest N] [--test-images N] [--sets NAME ...]
    [--only NAME ...]

Two sets, through our own steps (ingest, clean, split, prepare) and by the recipe that `visionloop
init` proposes for each: magnetic-tile surface defects, 1,344 images of six classes, 32 to 952 each,
64², every seed another split; and a long-tailed CIFAR-10, whose classes go from --largest images
down to a hundredth of it (Cui et al. 2019), every seed other images, tested on as many of every
class. Every remedy starts from the same weights and is shown as many images, so over- and
undersampling take fewer or more epochs. The epoch that is kept is chosen on validation images,
which are as unequal as the training images, by macro-F1 (`train.keep_by`, as `init` proposes).

The JSON: `ours` and `peer` are the macro-F1 of the best remedy (over both sets) and of plain
cross-entropy, the means over sets and seeds; `sets` has all figures.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score, recall_score

from benchmarks._cifar import add_data_argument, class_folders, images_folder
from benchmarks._shards import proposed, shards_of
from tasks.data.shards import Shards
from tasks.data.sources.folders import find_files, find_split_files
from tasks.schema import Imbalance, Params, Train
from tasks.training.loop import fit, predict
from tasks.training.models import build, channel_moments, spec_for
from tasks.training.sampling import EpochOrder

TILES = Path("../shared/datasets/magnetic-tile.tar.gz")
TILE_SET, CIFAR_SET = "magnetic-tile", "long-tailed-cifar"
SETS = (TILE_SET, CIFAR_SET)
RATIO = 100
PLAIN = "cross-entropy"
OFF: dict[str, object] = {  # what a remedy starts from, whatever the recipe has
    "sampling": "none",
    "class_weights": "none",
    "focal_gamma": 0.0,
    "logit_adjustment": 0.0,
}
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
        if CIFAR_SET in arguments.sets:
            cifar = class_folders(arguments.data, scratch / "cifar").parent
        if TILE_SET in arguments.sets:
            tiles = images_folder(arguments.tiles, scratch / "tiles")
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for title in arguments.sets:
                place = scratch / f"{title}-{seed}"
                if title == TILE_SET:
                    params, shards = _tiles(tiles, place, seed)
                else:
                    params, shards = _long_tailed(cifar, place, seed, sizes)
                for remedy in arguments.only:
                    train = _config(params.train, shards, REMEDIES[remedy], seed, sizes.epochs)
                    scores = _scores(shards, train)
                    found.setdefault(title, {}).setdefault(remedy, []).append(scores)
                    print(f"seed {seed}, {title}, {remedy}: {scores}", flush=True)
    _report(found)


def _tiles(tiles: Path, target: Path, seed: int) -> tuple[Params, Shards]:
    params = proposed(tiles)
    split = params.split.model_copy(update={"seed": seed})
    params = params.model_copy(update={"split": split})
    return params, shards_of(find_files(tiles), tiles, params, target)


def _long_tailed(cifar: Path, target: Path, seed: int, sizes: Sizes) -> tuple[Params, Shards]:
    images = _long_tailed_images(cifar, target / "images", seed, sizes)
    params = proposed(images)
    return params, shards_of(find_split_files(images), images, params, target / "shards")


def _long_tailed_images(cifar: Path, target: Path, seed: int, sizes: Sizes) -> Path:
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


def _scores(shards: Shards, config: Train) -> Scores:
    train, validation, test = (shards.split(name) for name in ("train", "validation", "test"))
    spec = spec_for(shards, config, channel_moments(train.images))
    torch.manual_seed(config.seed)
    model = build(spec)
    fit(model, train, validation, spec, config)
    predicted = predict(model, test.images, spec).argmax(1)
    recalls = recall_score(test.labels, predicted, average=None, zero_division=0)
    return float(f1_score(test.labels, predicted, average="macro")), float(recalls.min())


def _config(
    recipe: Train, shards: Shards, remedy: dict[str, object], seed: int, epochs: int
) -> Train:
    """The recipe with the remedy, and as many epochs as show as many images as without it."""
    train = shards.split("train")
    values: dict[str, Any] = recipe.model_dump()
    imbalance = Imbalance.model_validate(values["imbalance"] | OFF | remedy)
    shown = len(EpochOrder(train.labels, imbalance.sampling, train.weights))
    same = max(1, round(epochs * len(train) / shown))
    values |= {"imbalance": imbalance.model_dump(), "seed": seed, "epochs": same, "patience": same}
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
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30, help="of plain cross-entropy")
    parser.add_argument("--largest", type=int, default=2_000, help="images of CIFAR's first class")
    parser.add_argument("--test-images", type=int, default=10_000, help="of CIFAR, all classes")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", choices=REMEDIES, default=list(REMEDIES))
    arguments = parser.parse_args()
    if PLAIN not in arguments.only:
        arguments.only = [PLAIN, *arguments.only]
    return arguments


if __name__ == "__main__":
    main()
