"""What int8 costs in accuracy on CIFAR-10: our quantization, onnxruntime's own, and NNCF's.

python -m benchmarks.compression [--data CIFAR10.tar.gz | FOLDER] [--images N] [--epochs N]
                                 [--networks NAME ...] [--keep FOLDER]

The default small network and mobilenet_v3_small, trained by our own loop on --images images, a
fifth of which are held out for validation. Ours, as `dvc repro compress` makes it with a budget of
0.5 points, and onnxruntime.quantization.quantize_static as it comes take the exported network;
so does NNCF's post-training quantization as it comes, run by OpenVINO in an environment of its
own that the first run makes. All calibrate on the same training images, and all
are measured on the whole test set, which none has seen.

--keep leaves the trained networks in a folder and takes them from there the next time. The
JSON: `drop` is our larger loss of the networks, in points; `peers` those of the others;
`networks` has all figures.
"""

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._cifar import add_data_argument, class_folders
from benchmarks._int8_peers import NAIVE, NNCF, quantize_naively, quantize_with_nncf
from benchmarks._shards import shards_of
from tasks.compression.export import export
from tasks.compression.quantize import Limits, draw, quantize
from tasks.compression.runtime import in_batches, run_logits
from tasks.data.shards import Shards, ShardSplit, open_shards
from tasks.data.sources.folders import find_split_files
from tasks.params import load_params
from tasks.pixels import crop
from tasks.runtime import RuntimeName, open_model, open_session
from tasks.schema import Train
from tasks.training.loop import fit
from tasks.training.models import build, channel_moments, load_model, save_model, spec_for

PRESET = Path("conf/presets/small.yaml")
NETWORKS = ("resnet_small", "mobilenet_v3_small")
SIZE, BUDGET, CALIBRATION, SEED = 32, 0.005, 512, 0
OURS = "ours"


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("tasks.compression").setLevel(logging.INFO)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        keep = arguments.keep or Path(scratch, "networks")
        shards = _shards(arguments.data, Path(scratch), keep / f"shards-{arguments.images}")
        for name in arguments.networks:
            folder = keep / f"{name}-{arguments.images}-{arguments.epochs}"
            exported = _trained(name, shards, arguments.epochs, folder)
            found[name] = dict(_accuracies(exported, shards, Path(scratch)))
            _print(name, found[name])
    _report(found)


def _shards(data: Path, scratch: Path, target: Path) -> Shards:
    """CIFAR-10 through our own steps: `images` of its training set, and all of its test set."""
    if target.exists():
        return open_shards(target)
    cifar = class_folders(data, scratch / "cifar").parent
    images = _some(cifar, scratch / "images", int(target.name.rsplit("-", 1)[1]))
    return shards_of(find_split_files(images), images, load_params(PRESET), target)


def _some(cifar: Path, target: Path, count: int) -> Path:
    """Split folders: `count` training images, a fifth of them to validate, and all test images."""
    classes = sorted(folder.name for folder in (cifar / "train").iterdir())
    for label in classes:
        files = sorted((cifar / "train" / label).glob("*.jpg"))[: count // len(classes)]
        for number, file in enumerate(files):
            folder = target / ("val" if number % 5 == 0 else "train") / label
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)
        shutil.copytree(cifar / "test" / label, target / "test" / label)
    return target


def _trained(name: str, shards: Shards, epochs: int, folder: Path) -> Path:
    """The exported network, trained unless it is there."""
    exported = folder / "fp32.onnx"
    if not exported.exists():
        values: dict[str, Any] = load_params(PRESET).train.model_dump()
        values |= {"architecture": name, "epochs": epochs, "patience": epochs, "seed": SEED}
        values["augment"] |= {"flip": True}
        config = Train.model_validate(values)
        train, validation = shards.split("train"), shards.split("validation")
        spec = spec_for(shards, config, channel_moments(train.images))
        torch.manual_seed(SEED)
        model = build(spec)
        fit(model, train, validation, spec, config)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(folder / "model", model, spec)
        export(*load_model(folder / "model"), exported)
    return exported


def _accuracies(exported: Path, shards: Shards, scratch: Path) -> Iterator[tuple[str, float]]:
    """Test accuracy (0..1) of the network in float and as each quantizes it."""
    train, validation, test = (shards.split(name) for name in ("train", "validation", "test"))
    rows, _ = draw(len(train), CALIBRATION, SEED)
    calibration = np.ascontiguousarray(crop(train.images[rows], SIZE))
    yield "fp32", _accuracy(exported, test)
    naive = scratch / "naive.onnx"
    quantize_naively(exported, naive, calibration)
    yield NAIVE, _accuracy(naive, test)
    nncf = scratch / "nncf.xml"
    quantize_with_nncf(exported, nncf, calibration)
    yield NNCF, _accuracy(nncf, test, "openvino")
    ours = scratch / "ours.onnx"
    made = quantize(
        exported, ours, train.images, CALIBRATION, SEED, limits=_limits(exported, validation)
    )
    print(f"{exported.parent.name}: {made.model_dump_json()}", flush=True)
    yield OURS, _accuracy(ours, test)


def _limits(exported: Path, validation: ShardSplit) -> Limits:
    """The budget, on validation images."""
    wanted = run_logits(open_session(exported, 1), validation.images)
    accuracy = float((wanted.argmax(1) == validation.labels).mean())
    return Limits(validation.images, validation.labels, wanted, accuracy - BUDGET, 0.0)


def _accuracy(path: Path, split: ShardSplit, runtime: RuntimeName = "onnxruntime") -> float:
    run = open_model(path, runtime, 1, ["logits"])
    return float((in_batches(run, split.images, (64,)).argmax(1) == split.labels).mean())


def _print(name: str, accuracies: dict[str, float]) -> None:
    print(f"\n{name:30} accuracy  drop in points")
    for method, accuracy in accuracies.items():
        drop = 100 * (accuracies["fp32"] - accuracy)
        print(f"{method:30} {accuracy:8.2%}  {drop:6.2f}", flush=True)


def _report(found: dict[str, dict[str, float]]) -> None:
    drops = {
        method: round(max(100 * (values["fp32"] - values[method]) for values in found.values()), 2)
        for method in (OURS, NAIVE, NNCF)
    }
    peers = {method: drop for method, drop in drops.items() if method != OURS}
    percent = {
        name: {method: round(100 * value, 2) for method, value in values.items()}
        for name, values in found.items()
    }
    line = {"benchmark": "compression", "ours": drops[OURS], "peer": min(peers.values())}
    line |= {"drop": drops[OURS], "peers": peers, "unit": "points"}
    print(json.dumps(line | {"networks": percent}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10's training set")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--keep", type=Path, help="folder for the trained networks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
