"""What can be odd about an image: a score each, and the side of a threshold that is flagged.

Sizes, shapes and colours are odd beside the rest of the set, outliers beside their class;
the others are absolute. Duplicates and unreadable files are found in tasks/data/clean.py.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tasks.pixels import STATISTICS

if TYPE_CHECKING:
    import pandas as pd

_GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_FEWEST = 20  # images of a class, below which its spread means nothing
_NORMAL_MAD = 1.4826  # of a normal distribution: standard deviation over MAD


class Detector(NamedTuple):
    """How an image is scored, float32 [N] over the manifest, and which side is flagged."""

    score: "Callable[[pd.DataFrame], pd.Series[float]]"
    side: Literal["below", "above"]
    threshold: str  # a key of `clean`


def shorter_side(table: "pd.DataFrame") -> "pd.Series[float]":
    """Pixels of the shorter side."""
    return table[["width", "height"]].min(axis=1)


def size_factor(table: "pd.DataFrame") -> "pd.Series[float]":
    """How many times larger, or smaller, than the set's median size: √(width · height)."""
    return _factor((table["width"] * table["height"].astype(float)) ** 0.5)


def aspect_factor(table: "pd.DataFrame") -> "pd.Series[float]":
    """How many times wider, or narrower, than the set's median shape."""
    return _factor(table["aspect_ratio"].astype(float))


def colour_share(table: "pd.DataFrame") -> "pd.Series[float]":
    """Share of the set's images that are like this one grey, or coloured.

    An image of a colour mode that holds only greys counts as grey.
    """
    grey = table["mode"].isin(_GREY_MODES) | (table["saturation"] == 0)
    share = grey[table["error"].isna()].mean()
    return grey.map({True: share, False: 1 - share}).astype(float)


def outlyingness(table: "pd.DataFrame") -> "pd.Series[float]":
    """Largest modified z-score of an image's statistics within its class.

    Distance from the median over the scaled median absolute deviation (Iglewicz & Hoaglin
    1993, "How to detect and handle outliers"), of log values where a statistic is skewed
    (sharpness, aspect ratio). NaN in a class of fewer than 20 images.
    """
    values = table[list(STATISTICS)].astype(float)
    values[["sharpness", "aspect_ratio"]] = np.log(
        values[["sharpness", "aspect_ratio"]].clip(lower=1e-9)
    )
    labels = table["label"]
    distance = (values - values.groupby(labels).transform("median")).abs()
    spread = distance.groupby(labels).transform("median") * _NORMAL_MAD
    score = (distance / spread.clip(lower=1e-3)).max(axis=1)
    return score.where(values["brightness"].groupby(labels).transform("count") >= _FEWEST)


DETECTORS = {
    "too_small": Detector(shorter_side, "below", "min_side"),
    "odd_size": Detector(size_factor, "above", "odd_size"),
    "odd_aspect_ratio": Detector(aspect_factor, "above", "odd_aspect_ratio"),
    "dark": Detector(lambda table: table["brightness"], "below", "dark"),
    "bright": Detector(lambda table: table["brightness"], "above", "bright"),
    # standard deviation of luminance: RMS contrast (Peli 1990)
    "low_contrast": Detector(lambda table: table["contrast"], "below", "low_contrast"),
    # variance of the Laplacian (Pech-Pacheco et al. 2000)
    "blurry": Detector(lambda table: table["sharpness"], "below", "blurry"),
    # entropy of the grey histogram over its 8 bits (Shannon 1948), as cleanvision has it
    "low_information": Detector(lambda table: table["entropy"], "below", "low_information"),
    "wrong_mode": Detector(colour_share, "below", "wrong_mode"),
    "outlier": Detector(outlyingness, "above", "outlier"),
}


def _factor(values: "pd.Series[float]") -> "pd.Series[float]":
    ratio = values / values.median()
    return ratio.where(ratio >= 1, 1 / ratio)
