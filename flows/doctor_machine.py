"""What `visionloop doctor` looks at of the machine, and of what is installed on it.

Each check is a function that gives one `Check` or more; none imports a heavy library.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tasks.bundle import INFO, Runtime
from tasks.errors import VisionloopError
from tasks.params import Settings
from tasks.releases import current
from tasks.runtime import (
    GPU,
    TITLES,
    RuntimeName,
    available,
    idle_gpu,
    missing,
    version_of,
    version_of_runtime,
)

Status = Literal["ok", "warn", "fail"]

_LIBRARIES = (
    "dvc", "evidently", "fastapi", "great-expectations", "mlflow", "numpy", "onnx", "onnxruntime",
    "optuna", "pandas", "pillow", "prefect", "pydantic", "scikit-learn", "sqlalchemy", "torch",
    "torchvision",
)  # fmt: skip
_GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, what was found, and how to mend it ("" when ok)."""

    name: str
    status: Status
    found: str
    mend: str = ""


def _python(_: Settings) -> Iterator[Check]:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    supported = (3, 11) <= sys.version_info < (3, 14)
    mend = (
        "" if supported else "make a .venv with Python 3.11 to 3.13: make setup PYTHON=python3.11"
    )
    yield Check("python", "ok" if supported else "fail", found, mend)


def _machine(_: Settings) -> Iterator[Check]:
    memory = psutil.virtual_memory()
    free, total = memory.available / _GIB, memory.total / _GIB
    found = f"{psutil.cpu_count()} cores, {free:.1f} of {total:.1f} GiB memory free"
    enough = memory.available > 2 * _GIB
    mend = "" if enough else "close other programs; training and the servers want 2 GiB"
    yield Check("machine", "ok" if enough else "warn", found, mend)


def _disk(_: Settings) -> Iterator[Check]:
    free = shutil.disk_usage(".").free / _GIB
    status: Status = "ok" if free > 5 else "warn" if free > 1 else "fail"
    mend = "" if status == "ok" else "free space; `dvc gc --workspace` drops unused data versions"
    yield Check("disk", status, f"{free:.1f} GiB free", mend)


def _gpu(_: Settings) -> Iterator[Check]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        yield Check("gpu", "ok", "none: training runs on the CPU")
        return
    if done.returncode != 0:
        yield Check("gpu", "warn", "nvidia-smi fails", "mend the driver, or train on the CPU")
        return
    cpu_only = "+cpu" in (version_of("torch") or "")
    mend = "install a CUDA build of torch and torchvision" if cpu_only else ""
    names = "; ".join(done.stdout.strip().splitlines())
    yield Check("gpu", "warn" if cpu_only else "ok", names, mend)


def _libraries(_: Settings) -> Iterator[Check]:
    try:
        text = Path("requirements.lock").read_text(encoding="utf-8")
    except OSError:
        yield Check("libraries", "fail", "no requirements.lock", "git restore requirements.lock")
        return
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))
    wrong = []
    for name in _LIBRARIES:
        installed = version_of(name)
        if installed is None:
            wrong.append(f"{name} is missing")
        elif installed.partition("+")[0] != locked.get(name, "").partition("+")[0]:
            wrong.append(f"{name} {installed} is not the locked {locked.get(name, '(none)')}")
    if wrong:
        yield Check("libraries", "fail", "; ".join(wrong), "rm .venv/.synced && make setup")
    else:
        yield Check("libraries", "ok", f"{len(_LIBRARIES)} main libraries as in requirements.lock")


def _runtimes(settings: Settings) -> Iterator[Check]:
    """What can run a model, and whether the released one is to run on something else."""
    here, idle, wanted = available(), idle_gpu(), _released_runtime(settings)
    found = "; ".join([", ".join(map(_versioned, here)), *idle])
    if reason := missing(wanted):
        found = f"{found}; the model in production was measured on {TITLES[wanted]}"
        yield Check("runtimes", "warn", found, reason)
    elif idle and not set(here) & set(GPU):
        yield Check(
            "runtimes",
            "warn",
            found,
            "mend that, or go back to the build for CPUs: rm .venv/.synced && make setup",
        )
    else:
        yield Check("runtimes", "ok", found)


def _versioned(name: RuntimeName) -> str:
    return TITLES[name] if name in GPU else f"{TITLES[name]} {version_of_runtime(name)}"


def _released_runtime(settings: Settings) -> RuntimeName:
    """What the release in production is to run on; ONNX Runtime while none can be read."""
    try:
        release = current(settings)
        content = "{}" if release is None else (release.path / INFO).read_text(encoding="utf-8")
        return Runtime.model_validate(json.loads(content)["runtime"]).name
    except (VisionloopError, OSError, ValueError, KeyError):
        return "onnxruntime"


MACHINE = (_python, _machine, _disk, _gpu, _libraries, _runtimes)
