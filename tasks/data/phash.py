"""Perceptual hashes: a few bytes that hardly change when a picture is encoded, cut or lit anew.

The low frequencies of a grey thumbnail's cosine transform, as in the DCT hash of Zauner (2010,
"Implementation and benchmarking of perceptual image hash functions"), but their values instead
of their signs, seen through a window so that what a crop takes from the border weighs little,
and scaled to length 1 so that brightness and contrast do not count.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.int8]
Reals = npt.NDArray[np.float64]

HASHED_SIDE = 32  # pixels a side of what is hashed
COARSE = 25  # the first values: the lowest frequencies, which survive a crop or rotation best
LENGTH = 63

_SCALE = 127
_EXACT = 1 << 12  # a float64 holds every sum of pixels times whole numbers of this size
_FLAT = 0.5  # grey levels: an image that deviates less from its mean shows nothing to compare
_COARSE, _FINE = (6, 6), (10, 10)  # frequencies of a direction, and the highest sum of both


def perceptual_hashes(images: npt.NDArray[np.uint8]) -> Hashes:
    """The hashes, int8 N×LENGTH, of grey images uint8 N×32×32; of a flat image all zeros.

    The dot product of two, over the product of their lengths, is 1 for the same picture. The
    first COARSE values are a hash of their own. A hash does not depend on the other images, nor
    on the machine: what the transform adds up are whole numbers.
    """
    pixels = images.astype(np.float64)
    pixels -= np.rint(pixels.mean(axis=(1, 2), keepdims=True))
    waves = _waves()
    spectrum = waves @ pixels @ waves.T
    shares = waves.sum(axis=1) / waves[0].sum()
    spectrum -= np.outer(shares, shares) * spectrum[:, :1, :1]  # what the mean leaves in them
    vertical, horizontal = _frequencies()
    # natural images have amplitudes that fall with the frequency; this makes them alike
    values = spectrum[:, vertical, horizontal] * np.hypot(vertical, horizontal)
    flat = np.square(pixels).mean(axis=(1, 2)) < _FLAT**2
    lengths = np.where(flat, np.inf, np.sqrt(np.square(values).sum(axis=1)))
    return np.rint(_SCALE * values / lengths[:, None]).astype(np.int8)


def mirrored(hashes: Hashes) -> Hashes:
    """The hashes of the same images mirrored left to right."""
    _, horizontal = _frequencies()
    return hashes * np.where(horizontal % 2, -1, 1).astype(np.int8)


@cache
def _frequencies() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Vertical and horizontal frequency of each value of a hash, the coarse ones first."""

    def among(count: int, highest: int) -> list[tuple[int, int]]:
        both = [(v, h) for v in range(count) for h in range(count)]
        return [(v, h) for v, h in both if 0 < v + h <= highest]

    coarse = among(*_COARSE)
    order = coarse + [pair for pair in among(*_FINE) if pair not in coarse]
    vertical, horizontal = np.array(order, np.int64).T
    return vertical, horizontal


@cache
def _waves() -> Reals:
    """Frequencies × pixels of a side: cosines through the window, as whole numbers."""
    place = (np.arange(HASHED_SIDE) + 0.5) / HASHED_SIDE
    frequency = np.arange(_FINE[0])[:, None]
    waves: Reals = np.rint(_EXACT * np.cos(np.pi * frequency * place) * np.sin(np.pi * place))
    return waves
