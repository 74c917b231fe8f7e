"""Batches of images; those that must be decoded are, while the batch before is worked on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tasks.pixels import Images


def read_ahead(images: "Images", keys: Sequence[Any]) -> Iterator[Tensor]:
    """The images of each key (a slice, or an array of indices) in turn, uint8 n×S×S×3.

    A thread reads one batch ahead, so that no more than two are in memory. An array (in memory,
    or mapped: the page cache holds it) is read as it is: waiting for a thread would take longer.
    """
    if isinstance(images, np.ndarray):
        yield from (_read(images, key) for key in keys)
        return
    with ThreadPoolExecutor(1, "read") as reader:
        coming = [reader.submit(_read, images, key) for key in keys[:1]]
        for key in keys[1:]:
            batch = coming.pop().result()
            coming.append(reader.submit(_read, images, key))
            yield batch
        for last in coming:
            yield last.result()


def _read(images: "Images", key: Any) -> Tensor:
    batch = images[key]
    # a slice of a memory map is a read-only view, which torch does not take
    return torch.from_numpy(batch if batch.flags.writeable else batch.copy())
