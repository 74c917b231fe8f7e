"""A class of few clusters can miss a split by chance; here it gets one that drew nearly so."""

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.int64]


def top_up(
    rank: Ranks,
    cluster: Ranks,
    number: npt.NDArray[np.float64],
    label: npt.NDArray[np.object_],
    movable: npt.NDArray[np.bool_],
    bounds: tuple[float, float],
) -> None:
    """Give every class an image in each of the splits 0, 1 and 2, where one can be spared.

    All are [N], by image: `rank` (changed in place) is its split, `cluster` what stays together,
    `number` what its cluster drew, `label` its class (None: not used), `movable` whether its
    cluster may change. Of the clusters of a split that holds several, the one moves whose number
    is nearest to the numbers of the split that lacks the class: below bounds[0], below bounds[1],
    or above.
    """
    limits = ((0.0, bounds[0]), bounds, (bounds[1], 1.0))
    for name in sorted({one for one in label if one is not None}):
        members = np.flatnonzero(label == name)
        for split, (low, high) in enumerate(limits):
            if high <= low or (rank[members] == split).any():
                continue
            spare = [
                one
                for one in members[movable[members]].tolist()
                if _is_spare(one, members, rank, cluster)
            ]
            if spare:
                distance = [max(low - number[one], number[one] - high) for one in spare]
                rank[cluster == cluster[spare[int(np.argmin(distance))]]] = split


def _is_spare(one: int, members: Ranks, rank: Ranks, cluster: Ranks) -> bool:
    """Whether its split keeps another cluster of the class when this one leaves."""
    there = members[rank[members] == rank[one]]
    return bool((cluster[there] != cluster[one]).any())
