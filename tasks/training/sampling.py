"""Which images an epoch shows, and in which order: all once, or classes (and weights) balanced."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Sampling = Literal["none", "oversample", "undersample"]


class EpochOrder:
    """Draws the order of each epoch; `len` is the number of images it shows.

    Oversampling shows every class as often as the largest, undersampling as often as the
    smallest. Inside a class an image comes as often as its weight asks: each is shown its
    expected number of times, rounded down or up at random (systematic resampling), so that
    equal weights show all images equally often and nothing is left to luck but the remainder.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.int64],
        sampling: Sampling,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """`labels` and `weights` (above 0; None: all alike) are those of the N images."""
        self.expected: Tensor | None = None
        self._labels = torch.from_numpy(np.array(labels))
        self._length = len(labels)
        if sampling != "none" or (weights is not None and np.ptp(weights) > 0):
            expected = expected_counts(labels, sampling, weights)
            self.expected = torch.from_numpy(expected)
            self._length = round(float(expected.sum()))

    def __len__(self) -> int:
        return self._length

    def draw(self) -> Tensor:
        """The indices of the next epoch, int64, from torch's CPU generator."""
        shuffled = torch.randperm(len(self._labels))
        if self.expected is None:
            return shuffled
        # Class by class, so that the rounding keeps the number of images of every class.
        rows = shuffled[self._labels[shuffled].argsort(stable=True)]
        reached = self.expected[rows].cumsum(0)
        reached[-1] = self._length
        ends = (reached + torch.rand((), dtype=torch.float64)).floor().long()
        ends[-1] = self._length
        chosen = rows.repeat_interleave(ends.diff(prepend=ends.new_zeros(1)))
        return chosen[torch.randperm(self._length)]


def expected_counts(
    labels: npt.NDArray[np.int64],
    sampling: Sampling,
    weights: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """How often each of the N images is shown in an epoch, on average."""
    shares = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    if sampling == "none":
        return np.asarray(shares * (len(labels) / shares.sum()))
    counts = np.bincount(labels)
    target = counts.max() if sampling == "oversample" else counts[counts > 0].min()
    of_class = np.bincount(labels, weights=shares)
    return np.asarray(target * shares / of_class[labels])
