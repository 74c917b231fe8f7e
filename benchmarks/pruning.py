"""Accuracy against measured latency: our pruning beside another one and training alone.

python -m benchmarks.pruning [--data CIFAR10.tar.gz | FOLDER] [--images N] [--test N]
                             [--epochs E] [--tuning F] [--seeds S] [--width W] [--precision P]

A resnet_small of width W learns N CIFAR-10 images for E epochs. Then, at each of three strengths:

ours        our pruning as the preset has it, but for F epochs of fine-tuning
magnitude   the same number of channels out of every layer, those of the smallest weights, F
            epochs of fine-tuning on the labels alone, at the rate of training; made once where
            the preset asks for the same
scratch     a resnet_small of the width that is left, from random weights, for E + F epochs: those
            of the wide network are counted as its own, though one of them costs less

All see every image as often, with the same augmentation, batch, optimizer and schedule; the epoch
with the lowest validation loss is kept. Accuracy is of test images; latency of ONNX Runtime, batch
1, one thread, all networks of a seed in turn. The JSON: at the strength where it is lowest, `ratio`
is the accuracy of ours by that of the better peer at our latency (between two of its networks, on
the line that joins them), the means over seeds; `points` has all figures.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks._cifar import add_data_argument, class_folders
from benchmarks._drawn_cifar import Data, drawn_data
from tasks.compression.export import export
from tasks.compression.measure import measure_latency, onnx_run
from tasks.compression.prune import prune
from tasks.compression.targets import count_parameters
from tasks.data.shards import ShardSplit
from tasks.params import load_params
from tasks.schema import Distil, Params, Prune, Train
from tasks.training.loop import fit, predict
from tasks.training.models import Classifier, ModelSpec, build

PRESET = Path("conf/presets/small.yaml")
RUNS = 300
STRENGTHS = (0.25, 0.5, 0.75)
OURS, MAGNITUDE, SCRATCH = "ours", "magnitude", "scratch"
WIDE = "wide"
METHODS = (OURS, MAGNITUDE, SCRATCH)
Key = tuple[str, float]  # method, strength


@dataclass(frozen=True)
class Point:
    """A network: accuracy on test images, latency in milliseconds."""

    accuracy: float
    latency_ms: float


def main() -> None:
    arguments = _arguments()
    found: dict[Key, list[Point]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        root = class_folders(arguments.data, scratch / "cifar").parent
        for seed in range(arguments.seeds):
            data = drawn_data(root, seed, arguments.images, arguments.test, arguments.width)
            train = _train(seed, arguments.epochs, arguments.precision)
            networks = _networks(data, train, arguments.tuning, scratch)
            for key, point in _points(networks, data, scratch).items():
                found.setdefault(key, []).append(point)
                name = f"seed {seed}, {key[0]} {key[1]:.0%}"
                print(f"{name}: {point.accuracy:.4f} {point.latency_ms:.3f} ms", flush=True)
    _report(found)


def _networks(
    data: Data, train: Train, tuning: int, scratch: Path
) -> dict[Key, tuple[Classifier, ModelSpec]]:
    """The wide network, and those that each method makes of it or in its place."""
    params, spec = load_params(PRESET), data.spec
    wide = _trained(data, spec, train)
    networks = {(WIDE, 0.0): (wide, spec)}
    for strength in STRENGTHS:
        ours, peer = (_settings(params, one, strength, tuning) for one in (OURS, MAGNITUDE))
        place = scratch / f"{train.seed}-{OURS}-{strength}.pt"
        slim = prune(wide, spec, data.splits, train, ours, strength, place, RUNS)
        networks[OURS, strength] = networks[MAGNITUDE, strength] = slim, spec
        if peer != ours:
            place = scratch / f"{train.seed}-{MAGNITUDE}-{strength}.pt"
            other = prune(wide, spec, data.splits, train, peer, strength, place, RUNS)
            networks[MAGNITUDE, strength] = other, spec
        narrow = spec.model_copy(update={"width": round(spec.width * (1 - strength))})
        longer = _train(train.seed, train.epochs + tuning, train.precision)
        alone = _trained(data, narrow, longer)
        assert count_parameters(alone) == count_parameters(networks[MAGNITUDE, strength][0])
        networks[SCRATCH, strength] = alone, narrow
    return networks


def _settings(params: Params, method: str, strength: float, epochs: int) -> tuple[Prune, Distil]:
    """Ours is the preset with as much fine-tuning as the peer; the peer hears labels only."""
    common = {"ratios": [strength], "epochs": epochs}
    labels_only = {"importance": "magnitude", "scope": "layer", "target": "channels", "steps": 1}
    labels_only |= {"lr": params.train.lr, "alpha": 0.0}
    pruning = params.compress.prune.model_copy(
        update=common if method == OURS else common | labels_only
    )
    return pruning, params.compress.distil


def _trained(data: Data, spec: ModelSpec, train: Train) -> Classifier:
    torch.manual_seed(train.seed)
    model = build(spec)
    fit(model, *data.splits, spec, train)
    return model


def _train(seed: int, epochs: int, precision: str) -> Train:
    """The preset with mirrored images, without early stopping."""
    train = load_params(PRESET).train
    augment = train.augment.model_copy(update={"flip": True})
    values = {"seed": seed, "epochs": epochs, "patience": epochs, "precision": precision}
    return train.model_copy(update=values | {"augment": augment})


def _points(
    networks: Mapping[Key, tuple[Classifier, ModelSpec]], data: Data, scratch: Path
) -> dict[Key, Point]:
    """Networks of one shape take one time: each shape is timed once, beside the others."""
    shapes = {key: _shape(model) for key, (model, _) in networks.items()}
    runs = {}
    image = np.ascontiguousarray(data.test.images[:1])
    for number, (key, (model, spec)) in enumerate(networks.items()):
        path = scratch / f"{number}.onnx"
        if shapes[key] not in runs:
            export(model, spec, path)
            runs[shapes[key]] = onnx_run(path, image, 1)
    latency = measure_latency(runs, RUNS)
    return {
        key: Point(_accuracy(model, spec, data.test), latency[shapes[key]].median_ms)
        for key, (model, spec) in networks.items()
    }


def _shape(model: Classifier) -> str:
    return str([tuple(value.shape) for value in model.state_dict().values()])


def _accuracy(model: Classifier, spec: ModelSpec, test: ShardSplit) -> float:
    return float((predict(model, test.images, spec).argmax(1) == test.labels).mean())


def _report(found: Mapping[Key, list[Point]]) -> None:
    means = {
        key: Point(
            float(np.mean([point.accuracy for point in points])),
            float(np.median([point.latency_ms for point in points])),
        )
        for key, points in found.items()
    }
    print(f"\n{'':12}" + "".join(f"{f'-{strength:.0%} channels':>26}" for strength in STRENGTHS))
    for method in METHODS:
        cells = []
        for strength in STRENGTHS:
            spread = np.std([point.accuracy for point in found[method, strength]])
            point = means[method, strength]
            cells.append(f"{point.accuracy:.4f} ± {spread:.4f} {point.latency_ms:.3f} ms")
        print(f"{method:12}" + "".join(f"{cell:>26}" for cell in cells))
    wide = means[WIDE, 0.0]
    print(f"{WIDE:12}{wide.accuracy:.4f}, {wide.latency_ms:.3f} ms")
    rows = {strength: _compared(means, strength) for strength in STRENGTHS}
    worst = min(rows.values(), key=lambda row: row["ratio"])
    line = {"benchmark": "pruning", **{key: worst[key] for key in ("ours", "peer", "ratio")}}
    line |= {"wide": wide.accuracy, "wide_ms": wide.latency_ms}
    rounded = {k: v if isinstance(v, str) else round(v, 4) for k, v in line.items()}
    print(json.dumps(rounded | {"points": {f"{s:g}": row for s, row in rows.items()}}))


def _compared(means: Mapping[Key, Point], strength: float) -> dict[str, float]:
    """Ours at one strength beside each peer at the same latency."""
    ours = means[OURS, strength]
    peers = {name: _at(means, name, ours.latency_ms) for name in (MAGNITUDE, SCRATCH)}
    best = max(peers.values())
    row = {"ours": ours.accuracy, "latency_ms": ours.latency_ms, "peer": best} | peers
    return {name: round(v, 4) for name, v in (row | {"ratio": ours.accuracy / best}).items()}


def _at(means: Mapping[Key, Point], method: str, latency_ms: float) -> float:
    """The accuracy that a method has at this latency; past its ends, that of the end."""
    points = [means[method, strength] for strength in STRENGTHS] + [means[WIDE, 0.0]]
    points.sort(key=lambda point: point.latency_ms)
    times, accuracies = zip(*((p.latency_ms, p.accuracy) for p in points), strict=True)
    return float(np.interp(latency_ms, times, accuracies))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=5_000, help="to train on and validate")
    parser.add_argument("--test", type=int, default=5_000, help="images of the test split")
    parser.add_argument("--epochs", type=int, default=60, help="of the wide network")
    parser.add_argument("--tuning", type=int, default=20, help="epochs of fine-tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32, help="of the wide resnet_small")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
