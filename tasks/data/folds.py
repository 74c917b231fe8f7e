"""The folds of cross-validation: the packed training and validation images, divided anew.

Needs shards that were prepared with `split.folds`. Nothing is copied: the images of a fold are
read from both splits where they are indexed.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.data.shards import Shards, ShardSplit
from tasks.pixels import Images, Pixels

_POOLED = ("train", "validation")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """Fold `number` (from 0) is held out; `rows` of all folds' images are the held-out ones."""

    number: int
    rows: npt.NDArray[np.int64]
    train: ShardSplit
    held_out: ShardSplit


class ChosenImages:
    """Rows of several packed arrays as one, uint8 N×S×S×3; of larger images the middle."""

    def __init__(self, parts: Sequence[Images], rows: npt.NDArray[np.int64], side: int) -> None:
        self.parts, self.rows = tuple(parts), rows
        self.shape = (len(rows), side, side, 3)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Pixels:
        """Pixels: of one image by a number, of several by a slice or an array of numbers."""
        if isinstance(key, int | np.integer):
            one: Pixels = self[[key]][0]
            return one
        rows = self.rows[key]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        start = 0
        for part in self.parts:
            here = (rows >= start) & (rows < start + len(part))
            if here.any():
                images[here] = _middle(part[rows[here] - start], self.shape[1])
            start += len(part)
        return images


def folds(shards: Shards) -> Iterator[Fold]:
    """Every fold in turn, over the images outside the test split.

    Images packed with a margin give their middle, in training too. Raises DataError when the
    shards hold no folds.
    """
    parts = [shards.split(name) for name in _POOLED]
    number = np.concatenate([shards.folds(name) for name in _POOLED])
    if shards.contract.margin:
        log.warning("cross-validation trains on the middle of each image: prepare.margin is %d",
                    shards.contract.margin)  # fmt: skip
    for fold in range(int(number.max()) + 1):
        held_out = np.flatnonzero(number == fold)
        train = np.flatnonzero(number != fold)
        side = shards.contract.size
        yield Fold(fold, held_out, _chosen(parts, train, side), _chosen(parts, held_out, side))


def _chosen(parts: Sequence[ShardSplit], rows: npt.NDArray[np.int64], side: int) -> ShardSplit:
    paths = [path for part in parts for path in part.paths]
    return ShardSplit(
        images=ChosenImages([part.images for part in parts], rows, side),
        labels=np.concatenate([part.labels for part in parts])[rows],
        statistics=np.concatenate([part.statistics for part in parts])[rows],
        hashes=np.concatenate([part.hashes for part in parts])[rows],
        paths=[paths[row] for row in rows],
    )


def _middle(images: Pixels, side: int) -> Pixels:
    start = (images.shape[1] - side) // 2
    return images[:, start : start + side, start : start + side]
