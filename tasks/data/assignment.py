"""Which split an image goes to, so that no duplicate and no given group is in two.

An image is fixed when its source gives it a split, or it was in one before. The others hang
together by being duplicates or of one group. Where such a cluster touches fixed images of one
split it joins them; of two, it is left out, so that nothing old is pulled across; of none, it
draws a number in [0, 1) from its name and the seed: that of the given group, or else the smallest
pixel hash. Of fixed images that are duplicates in different splits, the stricter one stays.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.data.duplicates import Indices, components
from tasks.data.rare_classes import top_up
from tasks.data.shards import SPLITS as NAMES
from tasks.errors import DataError
from tasks.schema import Split

if TYPE_CHECKING:
    import pandas as pd

LEFT_OUT = "left out"
_STRICTEST = ("test", "validation", "train")  # the strictest is the smallest rank
_RANKS = {name: rank for rank, name in enumerate(_STRICTEST)}
_NONE, _CONFLICT = len(_STRICTEST), -1

__all__ = ["LEFT_OUT", "NAMES", "Images", "assigned", "draw"]

Names = npt.NDArray[np.object_]
Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """The distinct images, by pixel hash in order, and what ties them together.

    `node` is the index into `hashes` of each row, `edges` P×2 of such indices; `given` is the
    rank of the split from the source (the strictest of the same pixels) and _NONE without.
    """

    hashes: Names
    node: Indices
    edges: Indices
    given: Ranks

    @classmethod
    def of(cls, readable: "pd.DataFrame", pairs: "pd.DataFrame") -> "Images":
        """The images of the readable rows, in their order; `pairs` has left and right."""
        hashes, node = np.unique(readable["pixel_hash"].to_numpy(object), return_inverse=True)
        place = {value: index for index, value in enumerate(hashes)}
        alike = [
            (place[left], place[right])
            for left, right in zip(pairs["left"], pairs["right"], strict=True)
        ]
        edges = np.concatenate(
            [np.array(alike, np.int64).reshape(-1, 2), _of_one_group(readable, node)]
        )
        given = np.full(len(hashes), _NONE)
        np.minimum.at(given, node, given_ranks(readable))
        return cls(hashes, node, edges, given)


def given_ranks(readable: "pd.DataFrame") -> Ranks:
    """The rank of the split that the source gives each row, int64; a number of its own without."""
    return np.asarray(readable["given_split"].map(_RANKS).fillna(_NONE), np.int64)


def draw(text: str, seed: int, purpose: str = "") -> float:
    """A number in [0, 1) that depends on the text (a pixel hash) and the seed alone."""
    digest = hashlib.blake2b(f"{purpose}{seed}:{text}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def assigned(
    images: Images, readable: "pd.DataFrame", config: Split, previous: "pd.DataFrame | None"
) -> tuple[Names, list[str]]:
    """The split of each image (or LEFT_OUT), and the paths that are left out.

    Raises DataError when the source gives images of one group different splits.
    """
    _check_groups(readable)
    before = _before(images, previous)
    number = _numbers(images, readable, config.seed)
    fixed = _given(images, readable, before, number, config)
    fixed = np.where(fixed == _NONE, before, fixed)
    shares = (config.test, config.validation)
    rank, cluster, drawn = _joined(images.edges, fixed, number, shares)
    rows = readable[readable["keep"].to_numpy(bool)]
    kept_node = images.node[readable["keep"].to_numpy(bool)]
    label = np.full(len(images.hashes), None, object)
    label[kept_node] = rows["label"].to_numpy(object)
    movable = (fixed == _NONE) & (rank != _CONFLICT) & ~_touches(images.edges, fixed, cluster)
    top_up(rank, cluster, drawn, label, movable, (shares[0], sum(shares)))
    kept = np.zeros(len(images.hashes), bool)
    kept[kept_node] = True
    _leave_out_leaks(images.edges, fixed, rank, kept)
    names = np.array([*_STRICTEST, LEFT_OUT], object)[rank]
    return names, rows["path"][rank[kept_node] == _CONFLICT].tolist()


def _touches(edges: Indices, fixed: Ranks, cluster: Indices) -> npt.NDArray[np.bool_]:
    """Whether an image's cluster hangs on a fixed image, whose split it must share."""
    touching = np.zeros(cluster.max(initial=0) + 1, bool)
    for one, other in (edges.T, edges.T[::-1]):
        hanging = (fixed[one] == _NONE) & (fixed[other] != _NONE)
        touching[cluster[one[hanging]]] = True
    return touching[cluster]


def _of_one_group(readable: "pd.DataFrame", node: Indices) -> Indices:
    """Edges that chain the images of each given group."""
    grouped = readable["given_group"].notna().to_numpy()
    rows = np.flatnonzero(grouped)[np.argsort(readable["given_group"][grouped], kind="stable")]
    names = readable["given_group"].to_numpy(object)[rows]
    same = names[1:] == names[:-1]
    chain: Indices = np.column_stack([node[rows[:-1]], node[rows[1:]]])[same.astype(bool)]
    return chain


def _before(images: Images, previous: "pd.DataFrame | None") -> Ranks:
    """The rank that each image had; _NONE for a new one."""
    if previous is None:
        return np.full(len(images.hashes), _NONE)
    old = previous.dropna(subset="split")
    known = dict(zip(old["pixel_hash"], old["split"].map(_RANKS), strict=True))
    return np.array([known.get(value, _NONE) for value in images.hashes], np.int64)


def _given(
    images: Images, readable: "pd.DataFrame", before: Ranks, number: "_Numbers", config: Split
) -> Ranks:
    """The rank that the source gives.

    When it gives no validation (or no test) split at all, that one is drawn from its
    training images.
    """
    there = set(readable["given_split"].dropna())
    missing = [name for name in NAMES if name not in there]
    if len(missing) != 1 or "train" not in there:
        return images.given
    training = images.given == _RANKS["train"]
    shares = (config.test, 0.0) if missing == ["test"] else (0.0, config.validation)
    inside = images.edges[training[images.edges].all(axis=1)]
    mine = np.isin(before, [_RANKS["train"], _RANKS[missing[0]]])
    drawn, _, _ = _joined(inside, np.where(mine, before, _NONE), number, shares)
    return np.where(training, np.where(drawn == _CONFLICT, _RANKS["train"], drawn), images.given)


def _check_groups(readable: "pd.DataFrame") -> None:
    splits = readable.groupby("given_group")["given_split"].nunique()
    if (splits > 1).any():
        group = splits.idxmax()
        rows = readable[readable["given_group"] == group].dropna(subset="given_split")
        rows = rows.drop_duplicates("given_split")
        named = ", ".join(
            f"{path!r} in {split}"
            for path, split in zip(rows["path"], rows["given_split"], strict=True)
        )
        raise DataError(
            f"group {group!r} is given to several splits ({named}): what is learnt of it would "
            "be tested on it; mend the column split, or leave it empty for this group"
        )


class _Numbers(NamedTuple):
    """What each image would draw, and whether it draws by the name of a given group."""

    value: npt.NDArray[np.float64]
    grouped: npt.NDArray[np.bool_]


def _numbers(images: Images, readable: "pd.DataFrame", seed: int) -> _Numbers:
    name, of_group = images.hashes.copy(), np.zeros(len(images.hashes), bool)
    rows = readable["given_group"].notna().to_numpy()
    name[images.node[rows]] = "group " + readable["given_group"][rows].astype(str)
    of_group[images.node[rows]] = True
    return _Numbers(np.array([draw(value, seed) for value in name]), of_group)


def _joined(
    edges: Indices, fixed: Ranks, numbers: _Numbers, shares: tuple[float, float]
) -> tuple[Ranks, Indices, npt.NDArray[np.float64]]:
    """The rank of every image, its cluster of free ones and the number that drew.

    `shares` are those of test and validation. A cluster draws one number, however many images
    it has: of many, one would nearly always draw the test split.
    """
    free = fixed == _NONE
    left, right = edges.T
    cluster = components(len(fixed), edges[free[left] & free[right]])
    size = cluster.max(initial=0) + 1
    # the image that draws: the first of a given group, else the first, which has the least hash
    place = np.arange(len(fixed)) + len(fixed) * ~numbers.grouped
    leader = np.full(size, 2 * len(fixed))
    np.minimum.at(leader, cluster, place)
    number = numbers.value[leader % max(1, len(fixed))]
    own = (number >= shares[0]).astype(np.int64) + (number >= sum(shares))
    low, high = np.full(size, _NONE), np.full(size, -1)
    for one, other in ((left, right), (right, left)):
        touching = free[one] & ~free[other]
        np.minimum.at(low, cluster[one[touching]], fixed[other[touching]])
        np.maximum.at(high, cluster[one[touching]], fixed[other[touching]])
    own = np.where(high < 0, own, np.where(low == high, low, _CONFLICT))
    return np.where(free, own[cluster], fixed), cluster, number[cluster]


def _leave_out_leaks(
    edges: Indices, fixed: Ranks, rank: Ranks, kept: npt.NDArray[np.bool_]
) -> None:
    """Of two fixed images in different splits that are duplicates, the stricter one stays."""
    for left, right in edges[kept[edges].all(axis=1)]:
        if _CONFLICT in (rank[left], rank[right]) or rank[left] == rank[right]:
            continue
        if fixed[left] != _NONE and fixed[right] != _NONE:
            rank[left if rank[left] > rank[right] else right] = _CONFLICT
