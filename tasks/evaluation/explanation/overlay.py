"""A map over its image, in two colours that everybody tells apart."""

import numpy as np
import numpy.typing as npt

from tasks.metrics.classification import Floats
from tasks.pixels import Pixels

# The ends of ColorBrewer's PuOr, which is safe for the colour-blind: for and against the class.
FOR, AGAINST = (230, 97, 1), (94, 60, 153)
_STRONGEST = 99.0  # percentile of a map's absolute values that has the full colour
_COVER = 0.85  # of the image, under the full colour
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def overlay(image: Pixels, found: Floats) -> Pixels:
    """uint8 S×S×3 in grey, under a map S×S: orange speaks for the class, purple against it.

    The strength of the colour is in proportion to the value; every map has the scale of its own
    strongest pixels, since the values of two methods have no common unit.
    """
    strongest = np.percentile(np.abs(found), _STRONGEST) or np.abs(found).max() or 1.0
    cover = _COVER * np.minimum(np.abs(found) / strongest, 1)[..., None]
    grey = (image @ np.array(_GREY))[..., None]
    colour: npt.NDArray[np.int64] = np.where(found[..., None] > 0, FOR, AGAINST)
    return np.asarray(np.rint((1 - cover) * grey + cover * colour), np.uint8)
