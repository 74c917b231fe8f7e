"""Training: architectures, augmentation, the loop with its checkpoints, and the sweep."""

import os

# Threads that wait for each other sleep instead of spinning. On an idle machine it costs
# little; beside the servers, spinning made training many times slower. Read when PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
