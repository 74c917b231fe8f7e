"""How every pipeline step is started: `python -m tasks.…`, from `dvc repro` or by hand.

`run_step` sets up logging, turns a user's mistake into one clear line and an exit code,
and ends the process when its parent dies: a step orphaned by a killed `dvc repro` must
not go on writing beside the run that replaces it.
"""

import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from tasks.errors import VisionloopError

NESTED_LOG = "VISIONLOOP_NESTED_LOG"
_POLL_SECONDS = 0.5


def run_step(main: Callable[[], None]) -> None:
    """Run a step's `main` and exit: 0, or the error's exit code without a traceback."""
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
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(143)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()
