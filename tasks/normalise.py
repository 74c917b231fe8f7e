"""Domain normalisation: brings the intensities of one image to a common scale, uint8 to uint8.

Needs Pillow and numpy only, as tasks/pixels.py does, which calls it. Whole-number histograms and
tables of 256 entries: the same bytes on every machine.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

MID_GREY = 127  # of padding too
_LEAST_TILE = 4  # pixels: the histogram of a smaller tile says nothing


def normalise(image: Pixels, method: str, **values: float) -> Pixels:
    """Normalise a uint8 H×W×3 image by "none", "percentile", "zscore" or "clahe".

    `values` are the method's own: low and high, spread, clip and tiles; see the functions below.
    """
    if method not in _METHODS:
        raise ValueError(f"no normalisation {method!r}; there are {', '.join(_METHODS)}")
    return _METHODS[method](image, **values)


def unchanged(image: Pixels) -> Pixels:
    """The image as it is."""
    return image


def percentile(image: Pixels, low: float, high: float) -> Pixels:
    """Stretch intensities so that percentile `low` becomes 0 and `high` 255; what is beyond is cut.

    The percentiles (0..100) are of all three channels together, which keeps the colours. An image
    whose percentiles are equal stays as it is.
    """
    darkest, brightest = np.percentile(image, (low, high))
    if darkest == brightest:
        return image
    return _mapped(image, (np.arange(256) - darkest) * (255 / (brightest - darkest)))


def zscore(image: Pixels, spread: float) -> Pixels:
    """Centre the image on mid-grey, with a standard deviation of `spread` grey levels.

    Mean and deviation are of all three channels together. A deviation under one level counts as
    one, so that the noise of an image of one colour is not blown up.
    """
    counts = np.bincount(image.ravel(), minlength=256)
    levels = np.arange(256)
    mean = (counts @ levels) / image.size
    variance = (counts @ levels**2) / image.size - mean**2
    deviation = math.sqrt(max(float(variance), 1.0))
    return _mapped(image, MID_GREY + (levels - mean) * (spread / deviation))


def clahe(image: Pixels, clip: float, tiles: int) -> Pixels:
    """Contrast-limited adaptive histogram equalisation of the luminance (Zuiderveld 1994).

    Each of tiles×tiles parts of the picture is equalised by its own histogram, of which no bin
    may hold more than `clip` times the average; between the tiles' centres the mappings are
    interpolated. The luminance is the Y of YCbCr; the colours stay. On the luminance it gives
    what OpenCV's CLAHE gives. Parts are at least four pixels wide: small pictures have fewer.

    K. Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994.
    """
    if (image == image[..., :1]).all():  # YCbCr would round the grey levels
        return np.repeat(equalise(image[..., 0], clip, tiles)[..., None], 3, axis=2)
    luminance, *chroma = Image.fromarray(image).convert("YCbCr").split()
    equalised = Image.fromarray(equalise(np.asarray(luminance), clip, tiles))
    return np.asarray(Image.merge("YCbCr", (equalised, *chroma)).convert("RGB"))


def equalise(plane: Pixels, clip: float, tiles: int) -> Pixels:
    """`clahe` of one channel, uint8 H×W."""
    height, width = plane.shape
    rows, columns = (max(1, min(tiles, side // _LEAST_TILE)) for side in plane.shape)
    padded = np.pad(plane, ((0, -height % rows), (0, -width % columns)), mode="reflect")
    tall, wide = padded.shape[0] // rows, padded.shape[1] // columns
    parts = padded.reshape(rows, tall, columns, wide).swapaxes(1, 2).reshape(-1, tall * wide)
    tables = _tables(parts, clip).reshape(rows, columns, 256)
    above, below, down = _neighbours(height, tall, rows)
    left, right, across = _neighbours(width, wide, columns)
    one, down = np.float32(1), down[:, None]
    upper = (
        tables[above[:, None], left, plane] * (one - across)
        + tables[above[:, None], right, plane] * across
    )
    lower = (
        tables[below[:, None], left, plane] * (one - across)
        + tables[below[:, None], right, plane] * across
    )
    result: Pixels = np.rint(upper * (one - down) + lower * down).astype(np.uint8)
    return result


def _tables(parts: Pixels, clip: float) -> npt.NDArray[np.float32]:
    """The mapping of each part (uint8 T×pixels), whole numbers as float32 T×256."""
    count, area = parts.shape
    offsets = 256 * np.arange(count)[:, None]
    bins = np.bincount((parts + offsets).ravel(), minlength=256 * count).reshape(count, 256)
    limit = max(1, int(clip * area / 256))
    excess = np.maximum(bins - limit, 0).sum(1, keepdims=True)
    bins = np.minimum(bins, limit) + excess // 256
    rest = excess % 256  # fewer than one a bin: spread evenly over the bins
    step, levels = 256 // np.maximum(rest, 1), np.arange(256)
    bins += (levels % step == 0) & (levels // step < rest)
    scaled = np.cumsum(bins, axis=1).astype(np.float32) * np.float32(255 / area)
    tables: npt.NDArray[np.float32] = np.minimum(np.rint(scaled), 255).astype(np.float32)
    return tables


def _neighbours(
    side: int, tile: int, tiles: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each pixel of an axis the tiles before and after it, and how far it is between them."""
    position = np.arange(side, dtype=np.float32) * np.float32(1 / tile) - np.float32(0.5)
    before = np.floor(position)
    between = position - before
    first = before.astype(np.int64)
    return np.clip(first, 0, tiles - 1), np.clip(first + 1, 0, tiles - 1), between


def _mapped(image: Pixels, table: npt.NDArray[np.float64]) -> Pixels:
    """Each value replaced by the table's, rounded and kept within 0..255."""
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]


_METHODS: dict[str, Callable[..., Pixels]] = {
    "none": unchanged,
    "percentile": percentile,
    "zscore": zscore,
    "clahe": clahe,
}
