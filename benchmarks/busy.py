"""Training on a machine that is busy with other work: images/s, as we set up the threads.

python -m benchmarks.busy [--data CIFAR10.tar.gz | FOLDER] [--rounds N] [--width W]

A resnet_small of width W learns 1,500 images of CIFAR-10 for an epoch, after one that is not timed,
on all cores, alone and beside as many processes that do nothing but count as there are cores:

ours        as every command of ours starts: GOMP_SPINCOUNT=10000, set when `tasks` is imported
default     GNU OpenMP's own: a waiting thread spins 300,000 times before it sleeps
one thread  OMP_NUM_THREADS=1

Every training is a process of its own; the three take turns. The JSON: `ours` and `peer` (the
default) are images/s on the busy machine, medians over rounds; `idle_ratio` is the ratio alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._cifar import add_data_argument, class_folders
from benchmarks._drawn_cifar import drawn_data
from tasks.params import load_params
from tasks.training.loop import fit  # PyTorch comes after `tasks`, as in every step
from tasks.training.models import build

SETTINGS = {
    "ours": {},
    "default": {"GOMP_SPINCOUNT": "300000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
MACHINES = ("alone", "busy")
_IMAGES = 1_500
_OURS = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")  # a parent's are not inherited


def main() -> None:
    arguments = _arguments()
    if arguments.once:
        print(_rate(arguments.data, arguments.width))
        return
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = class_folders(arguments.data, Path(name)).parent
        for number in range(arguments.rounds):
            for machine in MACHINES:
                for title in SETTINGS:
                    with _others(os.cpu_count() or 1 if machine == "busy" else 0):
                        rate = _measured(root, arguments.width, SETTINGS[title])
                    rates.setdefault((machine, title), []).append(rate)
                    print(f"round {number}, {machine}, {title}: {rate:.0f} images/s", flush=True)
    _report(rates)


def _rate(root: Path, width: int) -> float:
    """Images/s of the second of two epochs, validation included."""
    data = drawn_data(root, 0, _IMAGES, 10, width)
    train = load_params().train.model_copy(update={"epochs": 1, "patience": 1})
    for _ in range(2):
        model = build(data.spec)
        started = time.perf_counter()
        fit(model, *data.splits, data.spec, train)
    return len(data.train.labels) / (time.perf_counter() - started)


def _measured(root: Path, width: int, settings: dict[str, str]) -> float:
    """The rate in a process of its own, since the threads are set up once in each."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
    command = [sys.executable, "-m", "benchmarks.busy", "--once", f"--data={root}"]
    done = subprocess.run(
        [*command, f"--width={width}"],
        env=inherited | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


@contextmanager
def _others(count: int) -> Iterator[None]:
    """Processes that want a core each."""
    counting = "while True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", counting]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _report(rates: dict[tuple[str, str], list[float]]) -> None:
    medians = {key: statistics.median(values) for key, values in rates.items()}
    print(f"\n{'images/s':12}" + "".join(f"{machine:>10}" for machine in MACHINES))
    for title in SETTINGS:
        cells = "".join(f"{medians[machine, title]:10.0f}" for machine in MACHINES)
        print(f"{title:12}{cells}")
    alone, busy = ({t: medians[machine, t] for t in SETTINGS} for machine in MACHINES)
    line = {
        "benchmark": "busy",
        "ours": round(busy["ours"]),
        "peer": round(busy["default"]),
        "ratio": round(busy["ours"] / busy["default"], 2),
        "idle_ratio": round(alone["ours"] / alone["default"], 2),
        "one_thread": {"busy": round(busy["one thread"]), "alone": round(alone["one thread"])},
    }
    print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=16, help="of the resnet_small")
    parser.add_argument("--once", action="store_true", help="one training, here; print its rate")
    return parser.parse_args()


if __name__ == "__main__":
    main()
