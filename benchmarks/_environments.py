"""Environments for peers whose packages are not ours, under .visionloop/benchmarks."""

import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(".visionloop/benchmarks")
_WHOLE = ".installed"  # written last: an installation that broke off is made again


def interpreter(name: str, *packages: str) -> Path:
    """The interpreter of the environment of that name, which has the packages; made on first use.

    Ends the program with uv's own words when they cannot be installed.
    """
    folder = ENVIRONMENTS / name
    python, whole = folder / "bin" / "python", folder / _WHOLE
    wanted = "\n".join(packages)
    if not whole.exists() or whole.read_text() != wanted:
        uv = str(Path(sys.executable).with_name("uv"))
        _run([uv, "venv", "--quiet", "--clear", str(folder)])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *packages])
        whole.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed\n{done.stderr[-2000:]}")
