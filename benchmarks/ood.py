"""Images of classes that were never learnt, of another data set, and noise: who notices them?

python -m benchmarks.ood [--data CIFAR10.tar.gz | FOLDER] [--tiles TILES.tar.gz | FOLDER]
                         [--images N] [--epochs N] [--strange N] [--seeds N]

A network learns six classes of CIFAR-10 (--images of them, --epochs). Usual images are the test
images of those six, strange ones --strange test images of the other four, magnetic tiles, and
noise. Ours is the score that the step `evaluate` chooses and folds into the graph, by strange
images that it makes of validation images: it knows none of these. pytorch-ood's detectors get the
same logits and embeddings, and the training images' ones to fit; `peer` is the one with the best
mean, which only these images tell. AUROC, the mean of --seeds networks.

The JSON: `ours` and `peer` are means over the kinds, `ratio` that of the two.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._cifar import add_data_argument, class_folders, images_folder, some_images
from benchmarks._pytorch_ood import scores
from benchmarks._shards import proposed, shards_of
from tasks.compression.export import export
from tasks.data.shards import Shards
from tasks.data.sources.folders import find_files
from tasks.evaluation.calibrators import fit as calibrator
from tasks.evaluation.folding import fold, run_folded
from tasks.evaluation.graph import open_graph
from tasks.evaluation.ood import choose_score
from tasks.evaluation.strange_images import strange_images
from tasks.metrics.strangeness import area
from tasks.pixels import Pixels, read
from tasks.schema import Params
from tasks.training.loop import fit
from tasks.training.models import build, channel_moments, spec_for

TILES = Path("../shared/datasets/magnetic-tile.tar.gz")
LEARNT = 6  # classes
NOISE = ("uniform noise", "Gaussian noise")
Areas = dict[str, dict[str, float]]  # AUROC by method and kind


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    found: list[Areas] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        train = class_folders(arguments.data, scratch / "cifar")
        tiles = images_folder(arguments.tiles, scratch / "tiles")
        learnt, others = _halves(train.parent, scratch, arguments)
        params = proposed(learnt)
        shards = shards_of(find_files(learnt), learnt, params, scratch / "shards")
        files = {"other classes": others, "magnetic tiles": sorted(tiles.glob("*/*.jpg"))}
        usual = _files(train.parent / "test", sorted(shards.classes))
        sets = {name: _pixels(some, shards, arguments.strange) for name, some in files.items()}
        usual_pixels = _pixels(usual, shards, arguments.strange)
        made = dict(strange_images(usual_pixels, 12345, grey=False))
        sets |= {name: made[name] for name in NOISE}
        for seed in range(arguments.seeds):
            graph = scratch / f"{seed}.onnx"
            _train(shards, params, arguments, seed, graph)
            found.append(_compare(graph, shards, params, {"usual": usual_pixels, **sets}))
    _report(found)


def _halves(cifar: Path, scratch: Path, arguments: argparse.Namespace) -> tuple[Path, list[Path]]:
    """A folder of the training images of the classes learnt, and test files of the others."""
    names = sorted(one.name for one in (cifar / "train").iterdir())
    known = scratch / "known"
    known.mkdir()
    for one in names[:LEARNT]:
        (known / one).symlink_to((cifar / "train" / one).resolve())
    learnt = some_images(known, scratch / "learnt", arguments.images)
    return learnt, _files(cifar / "test", names[LEARNT:])


def _files(folder: Path, names: list[str]) -> list[Path]:
    """The files of some class folders, the classes mixed."""
    found = [sorted((folder / name).iterdir()) for name in names]
    return [file for group in zip(*found, strict=True) for file in group]


def _pixels(files: list[Path], shards: Shards, count: int) -> Pixels:
    """`count` of the files, evenly over all, as the network's input."""
    contract = shards.contract
    rows = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
    return np.stack([contract.fit(read(files[row], contract.max_pixels)) for row in rows])


def _train(
    shards: Shards, params: Params, arguments: argparse.Namespace, seed: int, graph: Path
) -> None:
    changes: dict[str, Any] = {"epochs": arguments.epochs, "patience": arguments.epochs}
    config = params.train.model_copy(update={**changes, "seed": seed, "device": "cpu"})
    train = shards.split("train")
    spec = spec_for(shards, config, channel_moments(train.images))
    torch.manual_seed(seed)
    model = build(spec)
    fit(model, train, shards.split("validation"), spec, config)
    export(model.eval(), spec, graph)


def _compare(graph: Path, shards: Shards, params: Params, sets: dict[str, Pixels]) -> Areas:
    """AUROC of ours and of pytorch-ood's on one network."""
    run = open_graph(graph, ["logits", "embedding"])
    validation, train = shards.split("validation"), shards.split("train")
    known, labels = run(validation.images), np.asarray(validation.labels)
    chosen = choose_score(shards, run, known, params.evaluate)
    deployed = graph.with_suffix(".folded.onnx")
    fold(graph, calibrator("temperature", known[0], labels), chosen.score, deployed)
    ours = {
        name: run_folded(deployed, images, chosen.score, "onnxruntime")[2]
        for name, images in sets.items()
    }
    outputs = {
        name: dict(zip(("logits", "embedding"), run(images), strict=True))
        for name, images in sets.items()
    }
    edge = (train.images.shape[1] - shards.contract.size) // 2
    side = slice(edge, edge + shards.contract.size)
    middle = np.asarray(train.images)[:, side, side]
    fitting = {"embedding": run(middle)[1], "labels": np.asarray(train.labels)}
    peers = scores(fitting, outputs)
    test = shards.split("test")
    accuracy = (run(test.images)[0].argmax(1) == test.labels).mean()
    print(f"accuracy {accuracy:.1%} of {len(test)} images; chosen {chosen.score.name}", flush=True)
    areas = {f"ours: {chosen.score.name}, chosen": _areas(ours)}
    for one in chosen.scores:
        each = {name: one(*found.values()) for name, found in outputs.items()}
        areas[f"ours: {one.name}"] = _areas(each)
    for detector in peers["usual"]:
        each = {name: found[detector] for name, found in peers.items()}
        areas[detector] = _areas(each)
    return areas


def _areas(by_set: dict[str, npt.NDArray[np.floating]]) -> dict[str, float]:
    """AUROC of each kind against the usual images."""
    return {name: area(by_set["usual"], found) for name, found in by_set.items() if name != "usual"}


def _report(found: list[Areas]) -> None:
    kinds = list(next(iter(found[0].values())))
    chosen = [next(name for name in one if name.endswith(", chosen")) for one in found]
    rows = {"ours, chosen": [one[name] for one, name in zip(found, chosen, strict=True)]}
    for name in found[0]:
        if not name.endswith(", chosen"):
            rows[name] = [one[name] for one in found]
    print(f"\n{'AUROC':28}{''.join(f'{kind:>17}' for kind in kinds)}{'mean':>9}")
    means = {}
    for name, each in rows.items():
        values = [float(np.mean([one[kind] for one in each])) for kind in kinds]
        means[name] = float(np.mean(values))
        print(f"{name:28}{''.join(f'{value:17.3f}' for value in values)}{means[name]:9.3f}")
    peers = {name: mean for name, mean in means.items() if not name.startswith("ours")}
    best = max(peers, key=lambda name: peers[name])
    ours = means["ours, chosen"]
    line = {"benchmark": "ood", "ours": round(ours, 4), "peer": round(peers[best], 4)}
    print(json.dumps(line | {"ratio": round(ours / peers[best], 4), "peer_detector": best}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--tiles", type=Path, default=TILES, help="archive or folder")
    parser.add_argument("--images", type=int, default=2_000, help="of CIFAR-10, to learn from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--strange", type=int, default=1_000, help="images of each kind")
    parser.add_argument("--seeds", type=int, default=3, help="networks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
