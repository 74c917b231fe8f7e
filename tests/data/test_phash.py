"""Perceptual hashes: the same for a picture however it is lit, and for any company it is in."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tasks.data.phash import COARSE, HASHED_SIDE, LENGTH, mirrored, perceptual_hashes


def shrunk(image: Image.Image) -> np.ndarray:
    grey = image.convert("L")
    return np.asarray(grey.resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS))


def cosine(one: np.ndarray, other: np.ndarray, values: int = LENGTH) -> float:
    one, other = one[:values].astype(float), other[:values].astype(float)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_an_images_hash_does_not_depend_on_its_company(digit_images: np.ndarray) -> None:
    images = np.stack([shrunk(Image.fromarray(image)) for image in digit_images[:50]])
    alone = np.concatenate([perceptual_hashes(image[None]) for image in images])
    assert alone.shape == (50, LENGTH)
    assert alone.dtype == np.int8
    assert np.array_equal(perceptual_hashes(images), alone)


@pytest.mark.parametrize("grey", [0, 1, 127, 255])
def test_a_flat_image_has_no_hash(grey: int) -> None:
    flat = np.full((1, HASHED_SIDE, HASHED_SIDE), grey, np.uint8)
    flat[0, 3, 4] ^= 1  # nor has one with a rounding error
    assert not perceptual_hashes(flat).any()


def test_light_and_size_change_little_and_another_picture_much(photo: Image.Image) -> None:
    dim = ImageEnhance.Contrast(ImageEnhance.Brightness(photo).enhance(0.7)).enhance(0.7)
    pictures = [photo, dim, photo.resize((300, 300)), photo.rotate(180)]
    hashes = perceptual_hashes(np.stack([shrunk(picture) for picture in pictures]))
    assert cosine(hashes[0], hashes[1]) > 0.99
    assert cosine(hashes[0], hashes[2]) > 0.99
    assert cosine(hashes[0], hashes[3]) < 0.5


def test_the_coarse_values_bear_a_crop_best(photo: Image.Image) -> None:
    cropped = photo.crop((30, 20, 640, 427))
    one, other = perceptual_hashes(np.stack([shrunk(photo), shrunk(cropped)]))
    assert cosine(one, other, COARSE) > max(0.95, cosine(one, other))


def test_the_hash_of_a_mirrored_image_needs_no_image(digit_images: np.ndarray) -> None:
    images = np.stack([shrunk(Image.fromarray(image)) for image in digit_images[:50]])
    assert np.array_equal(
        mirrored(perceptual_hashes(images)), perceptual_hashes(images[:, :, ::-1])
    )
