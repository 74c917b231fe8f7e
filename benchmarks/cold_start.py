"""What it takes to open a model: the file as it is deployed beside ONNX Runtime's optimised ones.

python -m benchmarks.cold_start [--networks NAME ...] [--rounds N] [--starts N] [--runs N]

Each network, of random weights, is exported and quantized by our own step. ONNX Runtime then writes
each file as it has optimised it (SessionOptions.optimized_model_filepath) at its levels basic,
extended and all. The first two are opened as ours is, the last without optimisation, since none
is left. One thread; all files of a network take turns.

first answer   a session is opened and answers one image, in a process that has the libraries loaded
process        from the start of a process of its own to that answer
batch 1        of the open session
difference     of the logits from those of our file, at most

JSON: of the network and precision at which the best optimised file gains most, `ours` is the first
answer of the deployed file, `peer` that of the optimised one, in ms, `ratio` the peer's by ours:
below 1 the optimised file is faster. `process` is the same ratio for the process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from onnxruntime import GraphOptimizationLevel as Level

from tasks.compression.export import export
from tasks.compression.measure import measure_latency
from tasks.compression.quantize import quantize
from tasks.gpu import CPU
from tasks.pixels import Pixels
from tasks.runtime import INPUT
from tasks.schema import Architecture
from tasks.training.models import ModelSpec, build

SEED, CALIBRATION = 0, 16
OURS = "as deployed"
LEVELS = {
    "basic": Level.ORT_ENABLE_BASIC,
    "extended": Level.ORT_ENABLE_EXTENDED,
    "all": Level.ORT_ENABLE_ALL,
}
_PROCESS = """
import sys, time
import numpy as np, onnxruntime
path, level, side, started = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(int(level))
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
session.run(["logits"], {"images": np.zeros((1, int(side), int(side), 3), np.uint8)})
print(time.time() - float(started))
"""


class Network(NamedTuple):
    """What is built: of resnet_small `width` channels in the first stage."""

    architecture: Architecture
    size: int
    width: int = 16


NETWORKS = {
    "quickstart": Network("resnet_small", 16),
    "resnet_small-32": Network("resnet_small", 32, 32),
    "resnet18": Network("resnet18", 224),
    "mobilenet_v3_small": Network("mobilenet_v3_small", 224),
}


@dataclass(frozen=True)
class Opened:
    """What one file takes, in milliseconds."""

    first_ms: float
    process_ms: float
    run_ms: float
    size: int
    difference: float


def main() -> None:
    arguments = _arguments()
    found = {}
    for name in arguments.networks:
        with tempfile.TemporaryDirectory() as scratch:
            size = NETWORKS[name].size
            images = np.random.default_rng(SEED).integers(0, 256, (64, size, size, 3), np.uint8)
            for precision, path in _files(NETWORKS[name], images, Path(scratch)):
                rows = _measured(path, images[:1], arguments)
                found[f"{name}, {precision}"] = rows
                _print(f"{name}, {precision}", rows)
    _report(found)


def _files(network: Network, images: Pixels, folder: Path) -> Iterator[tuple[str, Path]]:
    """The float file, and the int8 one made from it."""
    spec = ModelSpec(
        architecture=network.architecture,
        width=network.width,
        depth=1,
        classes=tuple(map(str, range(10))),
        size=network.size,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    torch.manual_seed(SEED)
    plain, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    export(build(spec).eval(), spec, plain)
    yield "fp32", plain
    quantize(plain, int8, images, CALIBRATION, SEED, "min_max")
    yield "int8", int8


def _measured(path: Path, image: Pixels, arguments: argparse.Namespace) -> dict[str, Opened]:
    files = {OURS: (path, Level.ORT_ENABLE_ALL)}
    for name, level in LEVELS.items():
        target = path.with_stem(f"{path.stem}-{name}")
        _session(path, level, target)
        left = Level.ORT_DISABLE_ALL if name == "all" else Level.ORT_ENABLE_ALL
        files[name] = target, left
    first: dict[str, list[float]] = {name: [] for name in files}
    process: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(arguments.rounds):
        for name, (file, level) in files.items():
            first[name].append(_timed(lambda f=file, at=level: _run(_session(f, at), image)))  # type: ignore[misc]
            if turn < arguments.starts:
                process[name].append(_process(file, level, image.shape[1]))
    sessions = {name: _session(*one) for name, one in files.items()}
    runs = {name: (lambda s=s: _run(s, image)) for name, s in sessions.items()}  # type: ignore[misc]
    latency = measure_latency(runs, arguments.runs)
    logits = {name: _run(session, image) for name, session in sessions.items()}
    return {
        name: Opened(
            first_ms=median(first[name]),
            process_ms=median(process[name]),
            run_ms=latency[name].median_ms,
            size=file.stat().st_size,
            difference=float(np.abs(logits[name] - logits[OURS]).max()),
        )
        for name, (file, _) in files.items()
    }


def _session(path: Path, level: Any, target: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = level
    if target:
        options.optimized_model_filepath = str(target)
    return onnxruntime.InferenceSession(str(path), options, providers=[CPU])


def _run(session: Any, image: Pixels) -> Any:
    return session.run(["logits"], {INPUT: image})[0]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def _process(path: Path, level: Any, side: int) -> float:
    words = [str(path), str(int(level)), str(side), repr(time.time())]
    command = [sys.executable, "-c", _PROCESS, *words]
    return 1e3 * float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print(title: str, rows: dict[str, Opened]) -> None:
    print(f"\n{title}")
    heads = ("first answer", "process", "batch 1", "bytes", "difference")
    print(f"{'':16}" + "".join(f"{head:>14}" for head in heads))
    for name, row in rows.items():
        times = (row.first_ms, row.process_ms, row.run_ms)
        cells = "".join(f"{ms:11.3f} ms" for ms in times)
        print(f"{name:16}{cells}{row.size:14,}{row.difference:14.2g}", flush=True)


def _report(found: dict[str, dict[str, Opened]]) -> None:
    compared = {title: _compared(rows) for title, rows in found.items()}
    most = min(compared, key=lambda title: float(compared[title]["ratio"]))
    line = {"benchmark": "cold_start", **compared[most], "unit": "ms", "network": most}
    print(json.dumps(line | {"networks": compared}))


def _compared(rows: dict[str, Opened]) -> dict[str, Any]:
    """Ours beside the optimised file that gives its first answer soonest."""
    ours = rows[OURS]
    best = min(LEVELS, key=lambda name: rows[name].first_ms)
    return {
        "ours": round(ours.first_ms, 3),
        "peer": round(rows[best].first_ms, 3),
        "ratio": round(rows[best].first_ms / ours.first_ms, 3),
        "process": round(rows[best].process_ms / ours.process_ms, 3),
        "latency": round(rows[best].run_ms / ours.run_ms, 3),
        "size": round(rows[best].size / ours.size, 3),
        "level": best,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=40, help="sessions opened of each file")
    parser.add_argument("--starts", type=int, default=8, help="processes of each, at most --rounds")
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each, at least")
    return parser.parse_args()


if __name__ == "__main__":
    main()
