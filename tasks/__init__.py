"""What Visionloop does: plain typed Python, free of the orchestrator."""

import os

#: The parent when this process began its imports, which take seconds: a step whose parent
#: has changed since was left behind by a killed run (`tasks.step.die_with_parent`).
STARTED_BY = os.getppid()

# Read by GNU OpenMP, PyTorch's threads on Linux, when it is loaded. By default a thread that waits
# for the others keeps its core for a millisecond of spinning; where other processes want the
# cores too, those others are not running, and training gets slower than in one thread. This much
# costs nothing on an idle machine (benchmarks.busy).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
