"""A Python environment that has only what a device has: onnxruntime, numpy, pillow."""

import re
import subprocess
import venv
from collections.abc import Callable
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest

DEVICE = ("numpy", "onnxruntime", "pillow")


def _with_needs(names: tuple[str, ...]) -> dict[str, Distribution]:
    """The distributions by name, and those that they need themselves (extras aside)."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        needs = [need for need in found[name].requires or [] if "extra ==" not in need]
        waiting += [re.split(r"[\s<>=!~;\[(]", need, maxsplit=1)[0].lower() for need in needs]
    return found


def _top(one: Distribution) -> set[str]:
    """What a distribution has in site-packages: packages, modules, libraries, its own record."""
    return {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "/")}


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment into which only DEVICE and its needs are linked."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python3*/site-packages")
    for one in _with_needs(DEVICE).values():
        for name in _top(one):
            (site / name).symlink_to(Path(str(one.locate_file(name))))
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def foreign() -> list[str]:
    """Every module that is installed for these tests, but not on a device."""
    allowed = {name for one in _with_needs(DEVICE).values() for name in _top(one)}
    installed = {name for one in distributions() for name in _top(one)} - allowed
    modules = {re.sub(r"\.py$|\..*\.so$", "", name) for name in installed}
    return sorted(name for name in modules if name.isidentifier() and name != "tasks")


@pytest.fixture
def on_device(device: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs python ARGUMENTS... there, in an empty folder, with no variable of ours."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return subprocess.run(
            [device, *arguments], cwd=elsewhere, env={}, capture_output=True, text=True
        )

    return run
