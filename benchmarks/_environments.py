"""Environments for peers whose packages are not ours, under .visionloop/benchmarks; asking one."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

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


class Peer:
    """A script at work in another interpreter: a line in, a line out; a context manager."""

    def __init__(self, python: Path, script: str, *arguments: str) -> None:
        command = [str(python), "-c", script, *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str) -> str:
        """The answer to a line; ends the program when the script has failed."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> str:
        """The next line of the script."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("error: the peer failed; its message is above")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed\n{done.stderr[-2000:]}")
