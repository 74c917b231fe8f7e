"""Near-duplicates: hashes that are close, confirmed on the pixels of thumbnails.

A pair is judged by its two images alone, so images that are added later never part it. Groups
join pairs by single linkage: an image that resembles two others joins them even where those do
not resemble each other, for a split must not part any of the three.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.data.lsh import close_pairs
from tasks.data.parallel import in_threads
from tasks.data.phash import Hashes, mirrored
from tasks.data.registration import SIDE, similarity

Indices = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float32]

CANDIDATES = 32  # of an image, nearest by hash, that are compared by pixels
_COARSE, _FINE = 0.93, 0.85  # cosines of hashes; altered copies have 0.95 and more
_TOGETHER = 128  # pairs that a thread compares in one go


class NearDuplicates(NamedTuple):
    """Pairs of rows int64 P×2, the smaller first, and each row's best similarity, float32 [N].

    The similarity is that to the most similar row it was compared with, a near-duplicate or
    not; NaN where it was compared with none.
    """

    pairs: Indices
    scores: Reals


def near_duplicates(
    hashes: Hashes, thumbnails: Sequence[bytes], least: float, flip: bool
) -> NearDuplicates:
    """The pairs of rows whose pictures are at least `least` (-1..1) similar.

    `hashes` are `perceptual_hashes`, int8 N×LENGTH, of `thumbnails`, each the 1024 bytes of a
    grey 32×32 image; with `flip` mirrored copies are found too. In linear time and memory: an
    image in a crowd of look-alikes is compared with the CANDIDATES nearest, no more. What a
    pair gets may depend on which row comes first: sort the rows by their contents.
    """
    found, scores = [np.empty((0, 2), np.int64)], np.full(len(hashes), np.nan, np.float32)
    for mirror in (False, True)[: 1 + flip]:
        pairs = _candidates(hashes, mirror)
        values = _similarities(pairs, thumbnails, mirror)
        for column in (0, 1):
            np.fmax.at(scores, pairs[:, column], values)
        found.append(pairs[values >= least])
    return NearDuplicates(np.unique(np.concatenate(found), axis=0), scores)


def components(count: int, pairs: Indices) -> Indices:
    """Group `count` things that `pairs` connect, directly or through others: int64 [count]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    graph = coo_array(edges, shape=(count, count))
    labels: Indices = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _candidates(hashes: Hashes, mirror: bool) -> Indices:
    """Rows with close hashes, each pair once and the smaller first, int64 P×2."""
    queries = mirrored(hashes) if mirror else hashes
    keys, cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for query, row, cosine in close_pairs(hashes, queries, _COARSE, _FINE):
        other = query != row
        low, high = np.minimum(query, row)[other], np.maximum(query, row)[other]
        keys.append(low * len(hashes) + high)
        cosines.append(cosine[other])
    unique, first = np.unique(np.concatenate(keys), return_index=True)
    pairs = np.column_stack(np.divmod(unique, max(1, len(hashes))))
    return pairs[_nearest(pairs, np.concatenate(cosines)[first])]


def _nearest(pairs: Indices, cosines: Reals) -> npt.NDArray[np.bool_]:
    """Whether a pair is among the CANDIDATES closest of either of its rows."""
    rows = pairs.T.ravel()
    order = np.lexsort((-np.tile(cosines, 2), rows))
    begins = np.searchsorted(rows[order], rows[order])
    among = np.empty(len(rows), bool)
    among[order] = np.arange(len(rows)) - begins < CANDIDATES
    ours, theirs = among.reshape(2, -1)
    return ours | theirs


def _similarities(pairs: Indices, thumbnails: Sequence[bytes], mirror: bool) -> Reals:
    def compared(some: Indices) -> Reals:
        left, right = (_pixels(thumbnails, some[:, column]) for column in (0, 1))
        return similarity(left[:, :, ::-1] if mirror else left, right)

    some = (pairs[start : start + _TOGETHER] for start in range(0, len(pairs), _TOGETHER))
    return np.concatenate([np.empty(0, np.float32), *in_threads(compared, some)])


def _pixels(thumbnails: Sequence[bytes], rows: Indices) -> npt.NDArray[np.uint8]:
    joined = b"".join([thumbnails[row] for row in rows.tolist()])
    return np.frombuffer(joined, np.uint8).reshape(-1, SIDE, SIDE)
