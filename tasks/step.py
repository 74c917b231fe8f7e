"""How every process of ours is started: the steps of `dvc repro`, and what serves them.

`run_process` sets up logging, turns a user's mistake into one clear line and an exit code,
and ends when its parent does. `run_step` also keeps a step that a killed `dvc repro` left
behind from writing beside the run that replaces it: the new step waits until it has ended.
"""

import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tasks import STARTED_BY
from tasks.errors import VisionloopError
from tasks.locks import waited_for

NESTED_LOG = "VISIONLOOP_NESTED_LOG"
OWN_WORKERS = "visionloop-"  # begins torchrun's id of the workers that a step starts
_LOCK = Path("data/.step.lock")
_POLL_SECONDS = 0.5
_ORPHAN = 143  # as if ended by SIGTERM


def run_step(main: Callable[[], None]) -> None:
    """Run the `main` of a pipeline step, one at a time in a workspace, and exit as a process.

    Of the workers of one training (torchrun's) the first alone waits for its turn; of those that
    a step has started none, since the step has it.
    """

    def alone() -> None:  # DVC runs one at a time: another one at work is an orphan
        with waited_for(_LOCK, "a step of an earlier run is still at work here"):
            main()

    group = os.environ.get("TORCHELASTIC_RUN_ID")
    waits = group is None or (os.environ["RANK"] == "0" and not group.startswith(OWN_WORKERS))
    run_process(alone if waits else main)


def run_process(main: Callable[[], None]) -> None:
    """Run `main` and exit: 0, or the error's exit code without a traceback."""
    configure_logging()
    die_with_parent()
    try:
        main()
    except VisionloopError as error:
        sys.exit(_fail(str(error), error.exit_code))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(_fail(_disk_full(error), 4))
    except KeyboardInterrupt:
        sys.exit(130)


def configure_logging(level: int = logging.INFO) -> None:
    """Log lines to standard error as `time level name: message`.

    Below a pipeline run, which gives each line its time, as the bare message.
    """
    nested = os.environ.get(NESTED_LOG) == "true"
    line = "%(message)s" if nested else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level, format=line, datefmt="%H:%M:%S")


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _disk_full(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    return f"the disk is full{where}; nothing half-written is kept. Free space and run again."


def die_with_parent() -> None:
    """End this process, at once, when its parent is gone (a step, or a step's worker)."""
    if _orphaned():
        os._exit(_ORPHAN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(_ORPHAN)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()


def _orphaned() -> bool:
    """Whether the parent ended while this process was still importing.

    Or even before, as far as can be seen: a child shares its parent's session unless it leads
    one, and what adopts orphans (init) is in another, except inside some containers.
    """
    own = os.getsid(0)
    adopted = own != os.getpid() and own != os.getsid(os.getppid())
    return adopted or os.getppid() != STARTED_BY
