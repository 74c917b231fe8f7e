"""Too little memory, on a GPU or on the CPU, as an error that says what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tasks.errors import TrainingError

# What torch's allocator says on a CPU, and how oneDNN puts it when it gets none.
_NONE_LEFT = ("can't allocate memory", "could not create a primitive", "could not create a memory")


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """In the block, running out of memory raises TrainingError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_lack_of_memory(error):
            raise
        told = (str(error).splitlines() or ["MemoryError"])[0]
        raise TrainingError(
            f"the device has too little memory for train.batch_size {batch_size} and this "
            f"network; try {max(2, batch_size // 2)} ({told})"
        ) from None


def _is_lack_of_memory(error: Exception) -> bool:
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(text in str(error) for text in _NONE_LEFT)
