"""`visionloop doctor`: what is wrong with this machine and repository, and how to mend it.

Each check is a function that gives one `Check` or more; none imports a heavy library.
"""

import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

from flows.processes import running
from flows.services import services
from tasks.bundle import INFO, Runtime
from tasks.errors import VisionloopError
from tasks.params import Settings, load_params, load_settings
from tasks.ports import holder, is_free
from tasks.releases import current
from tasks.runtime import GPU, TITLES, RuntimeName, available, idle_gpu, missing, version_of
from tasks.schema import Source

Status = Literal["ok", "warn", "fail"]

_LIBRARIES = (
    "dvc", "evidently", "fastapi", "great-expectations", "mlflow", "numpy", "onnx", "onnxruntime",
    "optuna", "pandas", "pillow", "prefect", "pydantic", "scikit-learn", "sqlalchemy", "torch",
    "torchvision",
)  # fmt: skip
_GIB = 1 << 30
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, what was found, and how to mend it ("" when ok)."""

    name: str
    status: Status
    found: str
    mend: str = ""


def examine() -> list[Check]:
    """Run every check in the current directory, the root of a repository."""
    try:
        settings = load_settings()
    except VisionloopError as error:
        return [Check("settings", "fail", str(error), "mend the variable, then run this again")]
    checks: list[Callable[[Settings], Iterator[Check]]] = [
        _python, _machine, _disk, _gpu, _libraries, _runtimes, _git, _dvc, _params, _key, _servers,
    ]  # fmt: skip
    return [found for check in checks for found in check(settings)]


def report(checks: list[Check]) -> dict[str, Any]:
    """The checks as plain values: {"ok": bool, "checks": [...]}."""
    healthy = all(check.status != "fail" for check in checks)
    return {"ok": healthy, "checks": [asdict(check) for check in checks]}


def show(checks: list[Check], console: Console) -> None:
    """Print a line a check, and under each that is not ok, how to mend it."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(width=4)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark = f"[{_COLOURS[check.status]}]{check.status}[/]"
        table.add_row(mark, check.name, _escaped(check.found))
        if check.mend:
            table.add_row("", "", f"[bold]→ {_escaped(check.mend)}[/]")
    console.print(table)
    count = sum(check.status == "fail" for check in checks)
    console.print(f"[red]{count} failed[/]" if count else "[green]nothing is broken[/]")


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


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
    return TITLES[name] if name in GPU else f"{TITLES[name]} {version_of(name)}"


def _released_runtime(settings: Settings) -> RuntimeName:
    """What the release in production is to run on; ONNX Runtime while none can be read."""
    try:
        release = current(settings)
        content = "{}" if release is None else (release.path / INFO).read_text(encoding="utf-8")
        return Runtime.model_validate(json.loads(content)["runtime"]).name
    except (VisionloopError, OSError, ValueError, KeyError):
        return "onnxruntime"


def _git(_: Settings) -> Iterator[Check]:
    if shutil.which("git") is None:
        yield Check("git", "fail", "not installed", "install git; versions of code come from it")
        return
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        yield Check("git", "warn", "not a git repository", "git init, so that runs name a commit")
    elif changed := len(done.stdout.splitlines()):
        mend = "commit, so that the lineage of a model names the code that made it"
        yield Check("git", "warn", f"{changed} changed files", mend)
    else:
        yield Check("git", "ok", "clean")


def _dvc(_: Settings) -> Iterator[Check]:
    config = ConfigParser()
    try:
        found = config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    except ConfigError as error:
        yield Check("dvc", "fail", f".dvc/config: {error}", "git restore .dvc/config")
        return
    if not found:
        yield Check("dvc", "fail", "no .dvc/config", "git restore .dvc")
        return
    name = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{name}\"'", "url", fallback=None)
    if url is None:
        mend = "dvc remote add --default NAME URL, so that `dvc push` has a place"
        yield Check("dvc", "warn", "no default remote", mend)
    else:
        yield Check("dvc", "ok", f"remote {name}: {url}")


def _params(_: Settings) -> Iterator[Check]:
    try:
        sources = load_params().ingest.sources
    except VisionloopError as error:
        yield Check("params", "fail", str(error), "mend the key, or `visionloop init --data PATH`")
        return
    yield Check("params", "ok", "conf/params.yaml is valid")
    yield from map(_source, sources.values())


def _source(source: Source) -> Check:
    if "://" in source.path:
        return Check("data", "ok", f"{source.path} (looked at when it is ingested)")
    if Path(source.path).exists():
        return Check("data", "ok", source.path)
    if Path(source.path) == Path("data/raw/digits"):
        return Check("data", "ok", f"{source.path} (the quickstart's; the first run writes it)")
    mend = "put the images there, or `visionloop init --data PATH`"
    return Check("data", "fail", f"{source.path} does not exist", mend)


def _key(settings: Settings) -> Iterator[Check]:
    path = settings.signing_key or settings.home / "keys" / "signing.pem"
    if not path.exists():
        made = settings.signing_key is None
        mend = "" if made else "mend VISIONLOOP_SIGNING_KEY, or unset it to have a key made"
        found = "none yet; the first run makes one" if made else f"{path} does not exist"
        yield Check("signing key", "ok" if made else "fail", found, mend)
    elif not os.access(path, os.R_OK):
        yield Check("signing key", "fail", f"{path} cannot be read", f"chmod u+r {path}")
    elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Check("signing key", "fail", f"{path} is open to others", f"chmod 600 {path}")
    else:
        yield Check("signing key", "ok", str(path))


def _servers(settings: Settings) -> Iterator[Check]:
    try:
        servers = services(settings)
    except VisionloopError as error:
        yield Check("servers", "fail", str(error), "mend the address")
        return
    ours = running(settings) is not None
    for server in servers:
        name = f"port {server.port}"
        if server.answers():
            yield Check(name, "ok", f"{server.name} answers at {server.url}")
        elif not server.local:
            mend = "start it there, or unset its address to run one here"
            yield Check(name, "warn", f"{server.name} at {server.url} does not answer", mend)
        elif is_free(server.host, server.port):
            found = f"free; {server.name} is not running (`visionloop up` starts it)"
            yield Check(name, "ok", found)
        elif ours:
            yield Check(name, "warn", f"{server.name} is starting, or hangs", "see its log")
        else:
            found = f"held by {holder(server.port)}, which is not {server.name}"
            yield Check(name, "fail", found, f"stop it, or {server.move} visionloop up")
