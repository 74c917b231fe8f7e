"""Near-duplicates: perceptual hashes that are close, confirmed on thumbnails.

Candidates come from multi-index hashing (Norouzi, Punjani & Fleet 2012): two 64-bit
hashes within d bits agree on at least one of d + 1 bands, so only images that share a
band are compared.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


def near_duplicates(hashes: Hashes, thumbnails: Bytes, bits: int, difference: float) -> Indices:
    """Every pair of near-duplicates, int64 P×2 (a pair may come more than once).

    `hashes` uint64 [N], `thumbnails` uint8 N×T. A pair differs in at most `bits` bits and
    by at most `difference` (0..1) in the mean of its thumbnails' pixels.
    """
    limit = difference * 255
    brightness = thumbnails.mean(axis=1, dtype=np.float64)
    pairs = [np.empty((0, 2), np.int64)]
    for left, right in _sharing_a_band(hashes, bits + 1):
        close = np.bitwise_count(hashes[left] ^ hashes[right]) <= bits
        # the means cannot differ by more than the pixels do: a cheap test first
        close &= np.abs(brightness[left] - brightness[right]) <= limit
        left, right = left[close], right[close]
        close = _mean_difference(thumbnails[left], thumbnails[right]) <= limit
        pairs.append(np.column_stack([left[close], right[close]]))
    return np.concatenate(pairs)


def components(count: int, pairs: Indices) -> Indices:
    """Group `count` things that `pairs` connect, directly or through others: int64 [count]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    graph = coo_array(edges, shape=(count, count))
    labels: Indices = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _sharing_a_band(hashes: Hashes, bands: int) -> Iterator[tuple[Indices, Indices]]:
    edges = np.linspace(0, 64, bands + 1).astype(int)
    for low, high in pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        band = (hashes >> np.uint64(low)) & mask
        order = np.argsort(band, kind="stable")
        yield from _equal_neighbours(band[order], order)


def _equal_neighbours(band: Hashes, order: Indices) -> Iterator[tuple[Indices, Indices]]:
    """All pairs within runs of equal values: those 1 apart, then 2 apart, and so on."""
    alive = np.arange(len(band))
    for step in range(1, len(band)):
        alive = alive[alive + step < len(band)]
        alive = alive[band[alive] == band[alive + step]]
        if not len(alive):
            return
        yield order[alive], order[alive + step]


def _mean_difference(left: Bytes, right: Bytes) -> npt.NDArray[np.float64]:
    difference = np.abs(left.astype(np.int16) - right.astype(np.int16))
    mean: npt.NDArray[np.float64] = difference.mean(axis=1, dtype=np.float64)
    return mean
