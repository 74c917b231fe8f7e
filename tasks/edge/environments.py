"""An isolated environment for each converter: its packages clash with ours, and are not needed.

Made when first asked for, in <home>/environments/<target>-<hash of what is pinned>, with uv or
else pip, from the package index that the user has configured for them. Packages are pinned with
their hashes (tasks/edge/converters/<target>.txt, written by `uv pip compile --generate-hashes`).
"""

import logging
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tasks.edge.targets import CONVERTED
from tasks.errors import ServiceError
from tasks.files import remove_leftovers, sha256_json, write_directory
from tasks.locks import waited_for
from tasks.params import Settings

CONVERTERS = Path(__file__).with_name("converters")
_LINES = 6  # of an installer's complaint
log = logging.getLogger(__name__)


def pinned(target: str) -> list[str]:
    """The target's packages, as name==version."""
    lines = _lock(target).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line and line[0] not in " #-"]


def named(target: str) -> str:
    """The target's packages in a few words: those that convert, and how many more."""
    wanted, packages = pinned(target), CONVERTED[target].packages
    asked = [one for one in wanted if one.split("==")[0] in packages]
    return f"{', '.join(asked)} and {len(wanted) - len(asked)} more packages"


def environment(target: str, settings: Settings) -> Path:
    """The folder of the target's environment, whether it is there yet or not."""
    wanted = [_lock(target).read_text(encoding="utf-8"), platform.python_version_tuple()[:2]]
    return settings.home.resolve() / "environments" / f"{target}-{sha256_json(wanted)[:12]}"


def interpreter(target: str, settings: Settings) -> Path:
    """The Python of the target's environment, which is installed when it is not there.

    Raises ServiceError with the installer's own words when that fails.
    """
    folder = environment(target, settings)
    busy = f"another process installs the environment of {target}"
    with waited_for(folder.with_name(f"{folder.name}.lock"), busy):
        if not folder.is_dir():
            log.info("installing %s into %s", named(target), folder)
            remove_leftovers(folder)
            write_directory(folder, lambda to: _install(target, to))
    return _python(folder)


def _lock(target: str) -> Path:
    return CONVERTERS / f"{target}.txt"


def _python(folder: Path) -> Path:
    name = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return folder / name


def _install(target: str, folder: Path) -> None:
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    command = [*_installer(_python(folder)), "--require-hashes", "-r", str(_lock(target))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = "\n  ".join(done.stderr.strip().splitlines()[-_LINES:])
        raise ServiceError(
            f"the packages for {target} ({named(target)}) cannot be installed:\n  "
            f"{said}\nThey are fetched once from your package index; connect to it, or set "
            "UV_INDEX_URL (uv) or PIP_INDEX_URL (pip), and run this again"
        )


def _installer(python: Path) -> list[str]:
    """The command that installs into another environment: uv beside us or on PATH, else pip."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
