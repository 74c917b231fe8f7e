"""Which epoch's weights a training keeps: that of the lowest loss, or of the best macro-F1.

The loss of a network that has become sure of itself rises while its answers get better (Guo et
al. 2017), the more so where a remedy counts the few validation images of a rare class as much as
all of a common one: the lowest is then that of an epoch in which little had been learnt.
"""

import numpy as np
import numpy.typing as npt

from tasks.schema import Train
from tasks.training.health import Epoch


def macro_f1(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """The mean F1 of the classes that `labels` (N) has, of the classes `predicted` (N) for them.

    A class that is predicted but not there counts by what its images are taken for.
    """
    size = int(max(predicted.max(), labels.max())) + 1
    there, given = (np.bincount(one, minlength=size) for one in (labels, predicted))
    hits = np.bincount(labels[predicted == labels], minlength=size)
    present = there > 0
    return float((2 * hits[present] / (there + given)[present]).mean())


def better(one: Epoch, other: Epoch, config: Train) -> bool:
    """Whether `one` is to be kept rather than the earlier `other`, as train.keep_by says.

    Of epochs with one macro-F1, which is coarse, the one of the lower loss is.
    """
    if config.keep_by == "loss" or one.validation_macro_f1 == other.validation_macro_f1:
        return one.validation_loss < other.validation_loss
    return one.validation_macro_f1 > other.validation_macro_f1
