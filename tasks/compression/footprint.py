"""Memory and cold start of a model, in a process of its own: python -m tasks.compression.footprint

Prints JSON: bytes resident with the libraries alone, and what the model adds: once it is open,
and at the peak of opening and some runs; and the time from the start of the process to its first
answer. Needs the runtime, numpy and psutil only.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from tasks.runtime import RuntimeName, load, open_model

_RUNS = 3


@dataclass(frozen=True)
class Footprint:
    """Resident bytes: of the libraries, and above them of the open model and at the peak."""

    libraries: int
    loaded: int
    peak: int
    cold_start_ms: float


def footprint(
    model: Path, threads: int, shape: tuple[int, ...], runtime: RuntimeName = "onnxruntime"
) -> Footprint:
    """Open and run the ONNX file on uint8 images of `shape` in a fresh process, and measure."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", __spec__.name, str(model.resolve()), runtime, str(threads)]
    command += [repr(time.time()), *map(str, shape)]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return Footprint(**json.loads(done.stdout))


def _measure(
    model: Path, runtime: RuntimeName, threads: int, started: float, shape: tuple[int, ...]
) -> Footprint:
    import numpy as np

    images = np.zeros(shape, np.uint8)
    load(runtime)
    libraries = _resident()
    run = open_model(model, runtime, threads)
    run(images)  # OpenVINO compiles for a number of images when they come
    loaded = _resident() - libraries
    cold_start = 1e3 * (time.time() - started)
    for _ in range(_RUNS):
        run(images)
    return Footprint(libraries, loaded, _peak() - libraries, cold_start)


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak() -> int:
    """The most that was resident. Not getrusage's on Linux: that counts the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * scale


if __name__ == "__main__":
    model, runtime, threads, started, *sides = sys.argv[1:]
    (name,) = (name for name in get_args(RuntimeName) if name == runtime)
    found = _measure(Path(model), name, int(threads), float(started), tuple(map(int, sides)))
    sys.stdout.write(json.dumps(asdict(found)))
