"""Domain normalisation: the numbers that the methods promise, and OpenCV as CLAHE's oracle."""

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tasks.normalise import clahe, equalise, normalise, percentile, zscore


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A real photograph, 427×640×3."""
    return load_sample_images().images[0]


def grey(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).convert("L").resize((width, height)))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (224, 224), (33, 61), (99, 201)])
@pytest.mark.parametrize(("clip", "tiles"), [(1.0, 1), (2.0, 8), (4.5, 4), (40.0, 2)])
def test_clahe_is_opencvs(photo: np.ndarray, width: int, height: int, clip: float, tiles: int):
    plane = grey(photo, width, height)
    expected = cv2.createCLAHE(clip, (tiles, tiles)).apply(plane)
    np.testing.assert_array_equal(equalise(plane, clip, tiles), expected)
    triple = np.repeat(plane[..., None], 3, axis=2)  # a grey image stays grey, and exact
    np.testing.assert_array_equal(clahe(triple, clip, tiles), np.dstack([expected] * 3))


def test_clahe_lifts_local_contrast_and_keeps_the_colours(photo: np.ndarray):
    dull = (photo // 4 + 90).astype(np.uint8)
    found = clahe(dull, 4.0, 8)
    before, after = (Image.fromarray(image).convert("YCbCr") for image in (dull, found))
    assert np.asarray(after)[..., 0].std() > 1.5 * np.asarray(before)[..., 0].std()
    difference = np.asarray(after).astype(int) - np.asarray(before)
    assert np.abs(difference[..., 1:]).mean() < 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 2), (64, 5)])
def test_clahe_takes_pictures_smaller_than_its_tiles(shape: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert clahe(image, 2.0, 8).shape == image.shape


def test_percentiles_become_the_ends_of_the_scale(photo: np.ndarray):
    dull = (photo // 4 + 90).astype(np.uint8)
    found = percentile(dull, 2.0, 98.0)
    low, high = np.percentile(dull, (2, 98))
    expected = np.clip((dull - low) / (high - low), 0, 1) * 255
    assert np.abs(found - expected).max() <= 0.5 + 1e-9
    assert (found.min(), found.max()) == (0, 255)


def test_zscore_centres_and_scales(photo: np.ndarray):
    for image in (photo, (photo // 4 + 10).astype(np.uint8)):
        found = zscore(image, 30.0)
        assert found.mean() == pytest.approx(127, abs=1)
        assert found.std() == pytest.approx(30, rel=0.05)


def test_normalisation_undoes_a_change_of_light(photo: np.ndarray):
    """What it is for: two exposures of one scene become nearly one picture."""
    dark = (photo * 0.5 + 8).astype(np.uint8)
    apart = np.abs(photo.astype(int) - dark).mean()
    for method, values in (
        ("percentile", {"low": 1.0, "high": 99.0}),
        ("zscore", {"spread": 50.0}),
    ):
        first, second = (normalise(image, method, **values) for image in (photo, dark))
        assert np.abs(first.astype(int) - second).mean() < apart / 20


def test_an_image_of_one_colour_is_not_blown_up():
    flat = np.full((16, 16, 3), 200, np.uint8)
    np.testing.assert_array_equal(percentile(flat, 1.0, 99.0), flat)
    np.testing.assert_array_equal(zscore(flat, 50.0), np.full_like(flat, 127))
    noisy = flat.copy()
    noisy[0, 0] = 201  # the noise of a sensor, not a signal
    assert np.ptp(zscore(noisy, 50.0)) <= 50


def test_an_unknown_method_is_named(photo: np.ndarray):
    with pytest.raises(ValueError, match="no normalisation 'gamma'; there are none, percentile"):
        normalise(photo, "gamma")
