"""The only caller of DVC: runs milestones of dvc.yaml and says what has changed."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from tasks.errors import PipelineError
from tasks.params import Settings
from tasks.step import NESTED_LOG
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

_FAILURE_LINES = 12
# What DVC says at every stage and nobody needs to read in a log.
_NOISE = re.compile(
    r"Stage '.*' didn't change, skipping|(Generating|Updating) lock file|To track the changes|"
    r"\tgit add|To enable auto staging|\tdvc config core.autostage|Use `dvc push`|> |"
    r"Data and pipelines are up to date"
)


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the pipeline for one run; a second caller waits and says so."""
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / "pipeline.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another run is in progress; waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def changed_stages(workspace: Workspace, target: str, settings: Settings) -> list[str]:
    """The stages up to `target` that a `dvc repro` would look at again; [] means up to date."""
    command = [sys.executable, "-m", "dvc", "status", "--json", "--with-deps", target]
    done = subprocess.run(
        command, cwd=workspace.root, env=_environment(settings), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise PipelineError(f"dvc status failed: {_last_lines(done.stderr.splitlines())}")
    return sorted(json.loads(done.stdout or "{}"))


def repro(
    workspace: Workspace,
    milestone: str,
    settings: Settings,
    on_line: Callable[[str], None] = log.info,
) -> None:
    """Bring `milestone` (a stage of dvc.yaml) up to date; each output line goes to `on_line`.

    Raises PipelineError with the last lines of the stage that failed.
    """
    command = [sys.executable, "-m", "dvc", "repro", milestone]
    lines: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=workspace.root,
        env=_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        for line in process.stdout or ():
            if (line := line.rstrip()) and not _NOISE.match(line):
                lines.append(line)
                on_line(line)
        code = process.wait()
    except BaseException:
        # The steps end themselves when DVC, their parent, is gone (tasks/step.py).
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise PipelineError(f"`dvc repro {milestone}` failed:\n  {_last_lines(lines)}")


def _environment(settings: Settings) -> dict[str, str]:
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
