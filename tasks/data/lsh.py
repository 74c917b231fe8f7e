"""Which perceptual hashes are close, without comparing all with all.

Locality-sensitive hashing by random hyperplanes (Charikar 2002, "Similarity estimation
techniques from rounding algorithms"): hashes that point the same way lie on the same side of
most planes, so that they share a table's key, or one that differs from it in the most doubtful
bits (multi-probe; Lv et al. 2007). Whether two hashes meet depends on the two alone, except
where more than WINDOW share a key: there only those next in order are compared.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from tasks.data.parallel import in_threads
from tasks.data.phash import COARSE, LENGTH, Hashes

Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Cosines = npt.NDArray[np.float32]

WINDOW = 32  # hashes of one key that another is compared with
_TABLES = 3
_BITS = 22  # of a key
_DOUBTFUL = 3  # bits of a key that are tried both ways
_TOGETHER = 2048  # hashes that a thread looks up in one go: bounds the memory
_SEED = 0


def close_pairs(
    hashes: Hashes, queries: Hashes, coarse: float, fine: float
) -> Iterator[tuple[Indices, Indices, Cosines]]:
    """Rows of `queries` int8 Q×LENGTH and of `hashes` int8 N×LENGTH, and how close they are.

    The cosine between two is at least `coarse` over the first COARSE values and `fine` over
    all. A pair of rows comes once. A hash of zeros is close to none. In linear memory, and in
    linear time unless most hashes share their keys.
    """
    tables = _tables(hashes)

    def close(start: int) -> tuple[Indices, Indices, Cosines]:
        some = queries[start : start + _TOGETHER]
        found = []
        for number, table in enumerate(tables):
            query, row = _matches(table, some, number)
            near = _cosines(some, query, hashes, row, COARSE) >= coarse
            found.append(query[near] * len(hashes) + row[near])
        query, row = np.divmod(np.unique(np.concatenate(found)), max(1, len(hashes)))
        cosines = _cosines(some, query, hashes, row, LENGTH)
        near = cosines >= fine
        return query[near] + start, row[near], cosines[near]

    return in_threads(close, range(0, len(queries), _TOGETHER))


class _Table:
    """Rows in the order of their keys."""

    def __init__(self, keys: Keys, order: Keys) -> None:
        ordered = keys << np.uint64(_BITS) | order
        self.rows = np.argsort(ordered, kind="stable")
        self.ordered = ordered[self.rows]
        self.keys = keys[self.rows]

    def runs(self, keys: Keys, order: Keys) -> tuple[Indices, Indices]:
        """First and last + 1 of the rows with each key, at most WINDOW of them."""
        shift, one = np.uint64(_BITS), np.uint64(1)
        first = np.searchsorted(self.ordered, keys << shift)
        last = first.copy()
        (there,) = np.nonzero(self.keys.take(first, mode="clip") == keys)  # most are not
        last[there] = np.searchsorted(self.ordered, (keys[there] + one) << shift)
        (long,) = np.nonzero(last - first > WINDOW)
        wanted = keys[long] << np.uint64(_BITS) | order[long]
        middle = np.searchsorted(self.ordered, wanted) - WINDOW // 2
        first[long] = np.clip(middle, first[long], last[long] - WINDOW)
        last[long] = first[long] + WINDOW
        return first, last


def _tables(hashes: Hashes) -> list[_Table]:
    numbers = range(_TABLES)
    keys = list(in_threads(lambda number: _keys(_sides(hashes, number)), numbers))
    return list(in_threads(lambda number: _Table(keys[number], keys[number - 1]), numbers))


def _matches(table: _Table, queries: Hashes, number: int) -> tuple[Indices, Indices]:
    """Query and row of all that share one of a query's keys."""
    sides = _sides(queries, number)
    order = np.repeat(_keys(_sides(queries, (number - 1) % _TABLES)), 1 << _DOUBTFUL)
    first, last = table.runs(_probes(sides).ravel(), order)
    lengths = last - first
    query = np.repeat(np.arange(len(order)) >> _DOUBTFUL, lengths)
    place = np.arange(len(query)) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    return query, table.rows[place]


def _probes(sides: npt.NDArray[np.float32]) -> Keys:
    """A key with its most doubtful bits as they are and turned over, uint64 N×2^_DOUBTFUL."""
    doubtful = np.argsort(np.abs(sides), axis=1, kind="stable")[:, :_DOUBTFUL]
    bits = np.uint64(1) << doubtful.astype(np.uint64)
    turned = np.zeros((len(sides), 1), np.uint64)
    for column in range(_DOUBTFUL):
        turned = np.concatenate([turned, turned | bits[:, column : column + 1]], axis=1)
    return _keys(sides)[:, None] ^ turned


def _keys(sides: npt.NDArray[np.float32]) -> Keys:
    packed = np.zeros((len(sides), 8), np.uint8)
    packed[:, : -(-_BITS // 8)] = np.packbits(sides > 0, axis=1, bitorder="little")
    return packed.view("<u8").ravel().astype(np.uint64)


def _sides(hashes: Hashes, number: int) -> npt.NDArray[np.float32]:
    """Distances from the planes of a table, N×_BITS; whole numbers, so exact on any machine."""
    sides: npt.NDArray[np.float32] = hashes[:, :COARSE].astype(np.float32) @ _planes()[number]
    return sides


@cache
def _planes() -> npt.NDArray[np.float32]:
    draws = np.random.default_rng(_SEED).normal(0, 32, (_TABLES, COARSE, _BITS))
    return np.rint(draws).astype(np.float32)


def _cosines(queries: Hashes, query: Indices, hashes: Hashes, row: Indices, values: int) -> Cosines:
    """Of the angles between the first `values` values of pairs, 0 where one has none."""
    left = queries[:, :values][query].astype(np.float32)
    right = hashes[:, :values][row].astype(np.float32)
    product, ours, theirs = (
        np.einsum("ij,ij->i", one, other)
        for one, other in ((left, right), (left, left), (right, right))
    )
    cosines: Cosines = product / np.sqrt(np.maximum(ours * theirs, 1))
    return cosines
