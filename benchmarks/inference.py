"""Latency of the artifact that `compress` chooses, beside PyTorch, ONNX Runtime and others' int8.

python -m benchmarks.inference [--data CIFAR10.tar.gz | FOLDER] [--networks NAME ...] [--images N]
    [--epochs E] [--fine-epochs E] [--students E] [--prune-epochs E] [--runs N] [--keep FOLDER]

resnet18 and mobilenet_v2 learn --images images of CIFAR-10, enlarged: --epochs at 96×96, which is
six times as fast, and --fine-epochs at 224×224. Then our own step makes its candidates at 224×224
with a budget of 0.5 points: int8, a resnet_small taught for --students epochs, and half of the
channels pruned and tuned for --prune-epochs, on ONNX Runtime and OpenVINO, and chooses.

Peers: eager PyTorch fp32 in the better of its two memory formats, torch.compile, ONNX Runtime
fp32, ONNX Runtime's own static int8, and NNCF's int8 on OpenVINO. All are timed in turn in one
process, with all cores, at batch 1 and 32, from uint8 pixels to logits; accuracy is of --test test
images. JSON, the smaller of the networks: `ratio` is eager PyTorch by ours as chosen, `quantized`
by our fastest int8 of the network itself within the budget, `best_peer_ratio` the fastest peer by
ours as chosen, all at batch 1. `plain_ratio` and `plain_quantized` are of eager PyTorch in the
format that everybody gets who asks for none, channels first, of which `eager_ms` is the time.

--keep leaves the trained networks in a folder and takes them from there the next time.
"""

import argparse
import copy
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._cifar import add_data_argument
from benchmarks._compressed_networks import (
    BATCH,
    BUDGET,
    CALIBRATION,
    SEED,
    SIZE,
    SMALLER,
    compressed,
    enlarged_shards,
    trained,
)
from benchmarks._int8_peers import NAIVE, NNCF, quantize_naively, quantize_with_nncf
from tasks.compression.candidates import Candidate, Results
from tasks.compression.measure import Run, eager_run, measure_latency, onnx_run
from tasks.compression.quantize import draw
from tasks.compression.runtime import in_batches
from tasks.data.shards import Shards, ShardSplit
from tasks.pixels import Pixels
from tasks.runtime import open_model, usable_cores
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec, normalise

NETWORKS = ("resnet18", "mobilenet_v2")
OURS, QUANTIZED, PLAIN = (
    "ours, chosen",
    "ours, quantized alone",
    "eager PyTorch fp32, channels first",
)
LAST = "eager PyTorch fp32, channels last"
COMPILED, FP32 = "torch.compile", "ONNX Runtime fp32"
Row = dict[str, float]
_SMALLEST = (
    "ratio", "quantized", "plain_ratio", "plain_quantized", "best_peer_ratio", "best_peer_ratio_32",
)  # fmt: skip


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("tasks").setLevel(logging.INFO)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        keep = arguments.keep or scratch / "networks"
        shards = {side: enlarged_shards(arguments, scratch, keep, side) for side in (SMALLER, SIZE)}
        for architecture in arguments.networks:
            folder = keep / f"{architecture}-{arguments.epochs}-{arguments.fine_epochs}"
            model, spec = trained(architecture, shards, arguments, folder)
            results, folder = compressed(model, spec, shards[SIZE], arguments, folder)
            found[architecture] = _rows(model, spec, shards[SIZE], results, folder, arguments)
            _print(architecture, results, found[architecture])
    _report(found)


def _rows(
    model: Classifier,
    spec: ModelSpec,
    shards: Shards,
    results: Results,
    graphs: Path,
    arguments: argparse.Namespace,
) -> dict[str, Row]:
    """Milliseconds at both batches and test accuracy, of ours and of every peer."""
    test, train = shards.split("test"), shards.split("train")
    rows, _ = draw(len(train.labels), CALIBRATION, SEED)
    calibration = np.ascontiguousarray(train.images[rows])
    naive, nncf = graphs / "naive.onnx", graphs / "nncf.xml"
    quantize_naively(graphs / "fp32.onnx", naive, calibration)
    quantize_with_nncf(graphs / "fp32.onnx", nncf, calibration)
    ours = {OURS: results.named(results.chosen), QUANTIZED: _quantized(results)}
    eager = float((predict(model, test.images, spec).argmax(1) == test.labels).mean())
    accuracy = {
        **{title: _of(graphs / c.file, c, test) for title, c in ours.items()},
        **dict.fromkeys((PLAIN, LAST, COMPILED, FP32), eager),
        NAIVE: _accuracy(naive, "onnxruntime", test),
        NNCF: _accuracy(nncf, "openvino", test),
    }
    found: dict[str, Row] = {title: {"accuracy": value} for title, value in accuracy.items()}
    for batch, runs in ((1, arguments.runs), (BATCH, max(10, arguments.runs // 10))):
        images = np.array(test.images[:batch])
        timed = measure_latency(_runs(model, spec, ours, graphs, images), runs)
        for title, latency in timed.items():
            found[title][f"ms_{batch}"] = latency.median_ms
    return found


def _runs(
    model: Classifier,
    spec: ModelSpec,
    ours: Mapping[str, Candidate],
    graphs: Path,
    images: Pixels,
) -> dict[str, Run]:
    cores = usable_cores()
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {
        **{t: onnx_run(graphs / c.file, images, c.threads, c.runtime) for t, c in ours.items()},
        PLAIN: eager_run(plain, spec, images),
        LAST: eager_run(last, spec, images),
        COMPILED: _compiled(plain, spec, images),
        FP32: onnx_run(graphs / "fp32.onnx", images, cores),
        NAIVE: onnx_run(graphs / "naive.onnx", images, cores),
        NNCF: onnx_run(graphs / "nncf.xml", images, cores, "openvino"),
    }


def _compiled(model: Classifier, spec: ModelSpec, images: Pixels) -> Run:
    """The network and the normalisation, compiled together; the first call compiles."""
    whole = torch.compile(lambda pixels: model(normalise(pixels, spec)))
    pixels = torch.from_numpy(images)

    def run() -> object:
        with torch.inference_mode():
            return whole(pixels)

    return run


def _quantized(results: Results) -> Candidate:
    """The fastest int8 graph of the network itself that keeps the accuracy."""
    fp32 = results.named(results.fp32)
    kept = [c for c in results.candidates if c.file == "fp32-int8.onnx"]
    kept = [c for c in kept if fp32.accuracy - c.accuracy <= BUDGET + 1e-9] or [fp32]
    return min(kept, key=lambda candidate: candidate.latency_ms)


def _of(path: Path, candidate: Candidate, test: ShardSplit) -> float:
    return _accuracy(path, candidate.runtime, test)


def _accuracy(path: Path, runtime: Any, test: ShardSplit) -> float:
    run = open_model(path, runtime, usable_cores(), ["logits"])
    return float((in_batches(run, test.images, (BATCH,)).argmax(1) == test.labels).mean())


def _print(architecture: str, results: Results, rows: Mapping[str, Row]) -> None:
    chosen = results.named(results.chosen)
    print(f"\n{architecture}: {chosen.name}, {chosen.technique}, {chosen.threads} threads")
    print(f"{'':36}{'ms':>8}{'ms, batch 32':>14}{'accuracy':>10}")
    for title, row in rows.items():
        print(
            f"{title:36}{row['ms_1']:8.2f}{row[f'ms_{BATCH}']:14.1f}{row['accuracy']:10.2%}",
            flush=True,
        )


def _report(found: Mapping[str, Mapping[str, Row]]) -> None:
    ratios = {name: _ratios(rows) for name, rows in found.items()}
    worst = min(ratios, key=lambda name: ratios[name]["ratio"])
    line = {
        "benchmark": "inference",
        "ours": round(found[worst][OURS]["ms_1"], 3),
        "peer": round(min(found[worst][name]["ms_1"] for name in (PLAIN, LAST)), 3),
        "unit": "ms",
        **{key: round(min(one[key] for one in ratios.values()), 3) for key in _SMALLEST},
        "drop": round(max(one["drop"] for one in ratios.values()), 2),
        "network": worst,
        "networks": {
            name: {key: round(value, 3) for key, value in one.items()}
            for name, one in ratios.items()
        },
        "threads": usable_cores(),
        "size": SIZE,
    }
    print(json.dumps(line))


def _ratios(rows: Mapping[str, Row]) -> Row:
    """`drop` is in points of test accuracy, against PyTorch fp32."""
    peers = [name for name in rows if name not in (OURS, QUANTIZED)]
    plain = rows[PLAIN]["ms_1"]
    eager = min(plain, rows[LAST]["ms_1"])
    return {
        "ratio": eager / rows[OURS]["ms_1"],
        "quantized": eager / rows[QUANTIZED]["ms_1"],
        "plain_ratio": plain / rows[OURS]["ms_1"],
        "plain_quantized": plain / rows[QUANTIZED]["ms_1"],
        "eager_ms": plain,
        "eager_channels_last_ms": rows[LAST]["ms_1"],
        "best_peer_ratio": min(rows[name]["ms_1"] for name in peers) / rows[OURS]["ms_1"],
        "best_peer_ratio_32": min(rows[n][f"ms_{BATCH}"] for n in peers)
        / rows[OURS][f"ms_{BATCH}"],
        "drop": 100 * (rows[PLAIN]["accuracy"] - rows[OURS]["accuracy"]),
        "drop_quantized": 100 * (rows[PLAIN]["accuracy"] - rows[QUANTIZED]["accuracy"]),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--images", type=int, default=5_000, help="a fifth of them to validate")
    parser.add_argument("--test", type=int, default=2_000, help="test images")
    parser.add_argument("--epochs", type=int, default=15, help="at 96×96")
    parser.add_argument("--fine-epochs", type=int, default=2, help="at 224×224")
    parser.add_argument("--students", type=int, default=25, help="epochs of distillation")
    parser.add_argument("--width", type=int, default=32, help="of the student")
    parser.add_argument("--prune-epochs", type=int, default=4)
    parser.add_argument("--runs", type=int, default=100, help="timed runs of each, at least")
    parser.add_argument("--keep", type=Path, help="folder for the trained networks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
