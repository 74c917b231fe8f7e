"""Runs milestones of dvc.yaml and says what has changed; with tasks.versions, DVC's only caller."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.errors import PipelineError
from tasks.locks import waited_for
from tasks.step import NESTED_LOG, die_with_parent

if TYPE_CHECKING:  # a DVC process starts with this module: it imports nothing it can do without
    from tasks.params import Settings
    from tasks.workspace import Workspace

log = logging.getLogger(__name__)

_FAILURE_LINES = 12
_BUSY_SECONDS = 120
_RUNNING = re.compile(r"Running stage '(.*)':")
# What a step's own exit code says goes on: 3, an expectation does not hold; 4, a full disk.
_FAILED = re.compile(r"ERROR: failed to reproduce .*exited with ([34])$")
# What DVC says at every stage and nobody needs to read in a log.
_NOISE = re.compile(
    r"Stage '.*' didn't change, skipping|(Generating|Updating) lock file|To track the changes|"
    r"\tgit add|To enable auto staging|\tdvc config core.autostage|Use `dvc push`|> |"
    r"Data and pipelines are up to date"
)


@contextmanager
def exclusive(settings: "Settings") -> Iterator[None]:
    """Hold the pipeline for one run; a second caller waits and says so."""
    with waited_for(settings.home / "pipeline.lock", "another run is in progress"):
        yield


def changed_stages(workspace: "Workspace", target: str) -> list[str]:
    """The stages up to `target` that a `dvc repro` would look at again; [] means up to date.

    Waits while another DVC process is at work in the workspace. Raises PipelineError, and
    DataError when an output is not what dvc.lock names.
    """
    # Here, in this process: a `dvc status` of its own takes as long to start as to answer.
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    from tasks.versions.guard import refuse_altered

    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            # Locked for both: the second need not read the graph and dvc.lock again.
            with Repo(str(workspace.root)) as repository, lock_repo(repository):
                stage = f"{workspace.root / 'dvc.yaml'}:{target}"
                status = repository.status(targets=[stage], with_deps=True)
                refuse_altered(repository, target, status)
                return sorted(status)
        except LockError as error:
            if time.monotonic() > deadline:
                raise PipelineError(f"dvc is busy in {workspace.root}: {error}") from None
            log.info("another DVC process is at work here; waiting for it to end")
            time.sleep(2)
        except DvcException as error:
            raise PipelineError(f"dvc status failed: {error}") from None


def repro(
    workspace: "Workspace",
    milestone: str,
    settings: "Settings",
    on_line: Callable[[str], None] = log.info,
) -> list[str]:
    """Bring `milestone` (a stage of dvc.yaml) up to date; each output line goes to `on_line`.

    Gives the stages that ran; the others were up to date or taken from the cache. Raises
    PipelineError with the last lines of the stage that failed.
    """
    lines: list[str] = []
    with _dvc(["repro", milestone], workspace, settings) as process:
        for line in process.stdout or ():
            if (line := line.rstrip()) and not _NOISE.match(line):
                lines.append(line)
                on_line(line)
    if process.returncode != 0:
        codes = [int(match[1]) for line in lines if (match := _FAILED.match(line))]
        message = f"`dvc repro {milestone}` failed:\n  {_last_lines(lines)}"
        raise PipelineError(message, *codes[-1:])
    return [match[1] for line in lines if (match := _RUNNING.match(line))]


@contextmanager
def _dvc(
    arguments: list[str],
    workspace: "Workspace",
    settings: "Settings",
) -> "Iterator[subprocess.Popen[str]]":
    """A DVC process that ends when this one does, killed or not; its steps end with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.pipeline", *arguments],
        cwd=workspace.root,
        env=_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        yield process
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def main() -> None:
    """Be `dvc` with the given arguments for as long as the parent process lives."""
    from dvc.cli import main as dvc

    die_with_parent()
    sys.exit(dvc(sys.argv[1:]))


def _environment(settings: "Settings") -> dict[str, str]:
    return {
        **os.environ,
        "VISIONLOOP_HOME": str(settings.home.resolve()),
        "PYTHONUNBUFFERED": "1",
        NESTED_LOG: "true",
        "DVC_NO_ANALYTICS": "true",
    }


def _last_lines(lines: list[str]) -> str:
    """The user-facing end of a log: from the step's own `error:` line, if it gave one."""
    noise = ("ERROR: failed to reproduce",)
    kept = [line for line in lines if line.strip() and not line.startswith(noise)]
    for index, line in enumerate(kept):
        if line.startswith("error: "):
            return "\n  ".join(kept[index : index + 3 * _FAILURE_LINES])
    return "\n  ".join(kept[-_FAILURE_LINES:])


if __name__ == "__main__":
    main()
