"""The decision: quiet on clean images, loud on corrupted ones, honest on too few."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tasks.bundle import Bundle
from tasks.errors import DataError
from tasks.monitoring.drift import check_drift
from tasks.pixels import statistics
from tasks.schema import Drift

PARAMS = Drift(
    window_hours=24.0, min_predictions=200, alpha=0.01, min_effect=0.2, cooldown_hours=12.0
)


def served(bundle: Bundle, images: np.ndarray) -> SimpleNamespace:
    probabilities, _ = bundle.predict(images)
    measured = np.stack([statistics(image) for image in images])
    return SimpleNamespace(probabilities=probabilities, statistics=measured)


def check(bundle: Bundle, images: np.ndarray, params: Drift = PARAMS):
    return check_drift(bundle.reference(), served(bundle, images), params, bundle.info.classes)


def drawn(images: np.ndarray, seed: int, low: int = 0, count: int = 300) -> np.ndarray:
    random = np.random.default_rng(seed)
    return images[low + random.choice(len(images) - low, count, replace=False)]


@pytest.mark.parametrize("low", [0, 1200], ids=["any images", "held-out images"])
def test_clean_images_are_no_drift(digits_bundle, digit_images, low: int) -> None:
    outcomes = [check(digits_bundle, drawn(digit_images, seed, low)).outcome for seed in range(20)]
    assert outcomes == ["no_drift"] * 20


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(image.sum()).normal(0, 40, (8, 8, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))


def inverted(image: np.ndarray) -> np.ndarray:
    return 255 - image


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("corrupt", [noisy, blurred, inverted, brighter])
def test_corrupted_images_are_drift(digits_bundle, digit_images, corrupt) -> None:
    for seed in range(5):
        clean = drawn(digit_images, seed, 1200)
        result = check(digits_bundle, np.stack([corrupt(image) for image in clean]))
        assert result.outcome == "drift"
        assert result.drifted[0].distance == max(f.distance for f in result.features)
        assert result.drifted[0].name in result.summary


def test_one_class_alone_is_drift_of_its_probability(
    digits_bundle, digit_images, digit_labels
) -> None:
    """Statistics of the images apart, the predictions tell that only threes arrive."""
    threes = np.tile(digit_images[1200:][digit_labels[1200:] == 3], (6, 1, 1, 1))
    result = check(digits_bundle, threes)
    assert result.outcome == "drift"
    assert result.drifted[0].name == "P(3)"


def test_too_few_is_neither(digits_bundle, digit_images) -> None:
    inverted_images = 255 - digit_images[:199]
    result = check(digits_bundle, inverted_images)
    assert (result.outcome, result.n, result.features) == ("too_few", 199, ())
    assert "199 of at least 200" in result.summary


def test_an_empty_window_is_too_few(digits_bundle) -> None:
    empty = SimpleNamespace(probabilities=np.zeros((0, 0)), statistics=np.zeros((0, 0)))
    result = check_drift(digits_bundle.reference(), empty, PARAMS, digits_bundle.info.classes)
    assert result.outcome == "too_few"


def reference_and_window(shift: float, n: int = 20_000) -> tuple[dict, SimpleNamespace]:
    random = np.random.default_rng(0)
    probabilities = np.tile([0.5, 0.5], (n, 1))
    before, after = random.normal(size=(2, n, 5))
    after[:, 1] += shift
    return (
        {"probabilities": probabilities, "statistics": before},
        SimpleNamespace(probabilities=probabilities, statistics=after),
    )


def test_a_significant_trifle_is_no_drift() -> None:
    """20,000 predictions make a shift of 0.1 sigma certain, and it still matters to nobody."""
    result = check_drift(*reference_and_window(0.1), PARAMS, ["a", "b"])
    contrast = next(feature for feature in result.features if feature.name == "contrast")
    assert contrast.p_value < contrast.threshold
    assert contrast.distance == pytest.approx(0.04, abs=0.01)  # 2 Φ(0.05) - 1
    assert result.outcome == "no_drift"


def test_every_feature_is_tested_at_its_share_of_alpha() -> None:
    result = check_drift(*reference_and_window(1.0), PARAMS, ["a", "b"])
    assert len(result.features) == 7  # two classes, five statistics
    assert {feature.threshold for feature in result.features} == {0.01 / 7}
    assert [feature.name for feature in result.drifted] == ["contrast"]
    assert result.drifted[0].distance == pytest.approx(0.383, abs=0.02)  # 2 Φ(0.5) - 1


def test_a_difference_that_only_ranks_see_is_no_drift() -> None:
    """1e-7 where the reference says 1e-5: over-confident, not drifted."""
    reference, window = reference_and_window(0.0, 500)
    reference["probabilities"] = np.tile([1 - 1e-5, 1e-5], (500, 1))
    window.probabilities = np.tile([1 - 1e-7, 1e-7], (500, 1))
    assert check_drift(reference, window, PARAMS, ["a", "b"]).outcome == "no_drift"


def test_predictions_of_another_model_are_refused() -> None:
    with pytest.raises(DataError, match="not of 3 classes"):
        check_drift(*reference_and_window(0.0), PARAMS, ["a", "b", "c"])
