"""What Visionloop does: plain typed Python, free of the orchestrator."""

import os

#: The parent when this process began its imports, which take seconds: a step whose parent
#: has changed since was left behind by a killed run (`tasks.step.die_with_parent`).
STARTED_BY = os.getppid()
