"""What training took: seconds, the hardware, and joules where the machine counts them.

The energy is that of all processor packages by the kernel's counters (RAPL, /sys/class/powercap),
other work on the machine included; of a training on a GPU, which they do not see, it is not
known. Nothing is estimated: without counters there is no figure.
"""

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.training.health import Epoch

COUNTERS = Path("/sys/class/powercap")
_READ_EVERY = 30.0  # seconds: a counter starts again from 0 after some minutes at full power
Reading = dict[Path, int]


class Meter:
    """Joules since it was made; call `read` often enough for the counters not to lap unseen."""

    def __init__(self, device: torch.device, counters: Path = COUNTERS) -> None:
        packages = sorted(counters.glob("intel-rapl:?/energy_uj")) if device.type == "cpu" else []
        self._range = {path: _number(path.with_name("max_energy_range_uj")) for path in packages}
        self._known = bool(packages) and None not in self._range.values()
        self._total, self._last, self._due = 0, self._now(), time.perf_counter() + _READ_EVERY

    @property
    def joules(self) -> float | None:
        """None where the machine does not count them, or does not let this process read them."""
        self._read()
        return self._total / 1e6 if self._known else None

    def read(self) -> None:
        """Read the counters, if it is time."""
        if self._known and time.perf_counter() >= self._due:
            self._read()

    def _read(self) -> None:
        now = self._now()
        if self._known:
            lapped = {path: self._range[path] or 0 for path in now}
            self._total += sum((now[p] - self._last[p]) % (lapped[p] + 1) for p in now)
        self._last, self._due = now, time.perf_counter() + _READ_EVERY

    def _now(self) -> Reading:
        found = {path: _number(path) for path in self._range} if self._known else {}
        self._known = self._known and None not in found.values()
        return {path: value for path, value in found.items() if value is not None}


def training_cost(history: Sequence[Epoch], device: torch.device) -> dict[str, Any]:
    """For data/metrics/train_cost.json: seconds, joules (null: not known) and the hardware.

    Of an epoch in which the training was killed, the part after it counts.
    """
    timed = all(epoch.seconds > 0 for epoch in history)  # not by a version from before this
    joules = [epoch.joules for epoch in history if epoch.joules is not None]
    return {
        "seconds": sum(epoch.seconds for epoch in history) if timed else None,
        "joules": sum(joules) if joules and len(joules) == len(history) else None,
        "device": device.type,
        "hardware": hardware(device),
    }


def hardware(device: torch.device) -> str:
    """The name of the GPU or processor that trains, as the machine gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; None where it may not be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
