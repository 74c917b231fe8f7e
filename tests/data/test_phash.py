"""Perceptual hashes: those of the imagehash library, for many images at once."""

import imagehash
import numpy as np
from PIL import Image

from tasks.data.phash import HASHED_SIDE, perceptual_hashes


def shrunk(image: Image.Image) -> np.ndarray:
    grey = image.convert("L")
    return np.asarray(grey.resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS))


def test_they_are_the_librarys(digit_images: np.ndarray, photo: Image.Image) -> None:
    tiles = [photo.crop((x, y, x + 50, y + 40)) for x in range(0, 600, 20) for y in (0, 90, 300)]
    images = [*map(Image.fromarray, digit_images[:300]), *tiles]
    expected = [int(str(imagehash.phash(image)), 16) for image in images]
    hashes = perceptual_hashes(np.stack([shrunk(image) for image in images]))
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == expected


def test_an_images_hash_does_not_depend_on_its_company(digit_images: np.ndarray) -> None:
    images = np.stack([shrunk(Image.fromarray(image)) for image in digit_images[:50]])
    alone = [perceptual_hashes(image[None])[0] for image in images]
    assert perceptual_hashes(images).tolist() == alone


def test_flat_images_of_any_grey_hash_alike() -> None:
    """Without rounding, the bits would be those of rounding errors."""
    flat = np.stack([np.full((HASHED_SIDE, HASHED_SIDE), grey, np.uint8) for grey in range(1, 256)])
    assert set(perceptual_hashes(flat).tolist()) == {1 << 63}
