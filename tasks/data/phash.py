"""Perceptual hashes: 64 bits that stay nearly the same when a picture is re-encoded or resized.

The DCT hash of Zauner (2010, "Implementation and benchmarking of perceptual image hash
functions"), bit for bit that of the imagehash library, for many images at once.
"""

import numpy as np
import numpy.typing as npt

HASHED_SIDE = 32  # pixels a side of what is hashed
_BITS_SIDE = 8  # the lowest frequencies of either direction
_NOISE = 6  # decimals; without rounding, the bits of a flat image would be those of rounding errors


def perceptual_hashes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The hashes, uint64 [N], of grey images uint8 N×32×32.

    A bit says whether a low frequency of the type-II cosine transform is above the median of
    the 64; the highest bit is the mean's, and rows follow each other.
    """
    basis = _cosines()
    frequencies = np.round(basis @ images.astype(np.float64) @ basis.T, _NOISE)
    low = frequencies.reshape(len(images), _BITS_SIDE**2)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _cosines() -> npt.NDArray[np.float64]:
    frequency, place = np.arange(_BITS_SIDE)[:, None], np.arange(HASHED_SIDE)[None, :]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * HASHED_SIDE))
