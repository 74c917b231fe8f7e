"""Calibration on logits whose right mend is known: its fit, and the choice of the method."""

import numpy as np
import pytest
import torch

from tasks.evaluation.calibration import alike, calibrate, cross_validate
from tasks.evaluation.calibrators import KNOTS, fit
from tasks.evaluation.temperature import LOWEST, fit_temperature
from tasks.metrics.reliability import negative_log_likelihood, reliability, softmax


def overconfident(n: int = 6000, temperature: float = 2.5, seed: int = 0):
    """Labels drawn from softmax(logits / temperature): that temperature is the right one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (n, 5))
    gumbel = rng.gumbel(size=logits.shape)
    return logits.astype(np.float32), (logits / temperature + gumbel).argmax(1)


@pytest.mark.parametrize("temperature", [0.5, 1.7, 4.0])
def test_the_right_temperature_is_found(temperature):
    logits, labels = overconfident(temperature=temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted.value == pytest.approx(temperature, rel=0.06)
    assert fitted.note is None


def test_one_mistake_that_is_nearly_none_does_not_make_the_others_sure():
    """By the likelihood alone the others would be right with a probability of 0.9999 and more."""
    labels = np.arange(200) % 4
    logits = np.eye(4)[labels] * 2.0
    logits[0] = [1.0, 1.01, 0.0, 0.0]
    sure = softmax(logits, fit_temperature(logits, labels).value).max(1)[1:].mean()
    assert 0.98 < sure < 0.9975


def test_the_fit_is_the_one_torch_finds():
    logits, labels = overconfident(500)
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    x, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    optimizer = torch.optim.LBFGS(
        [log_t], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x / log_t.exp(), y, label_smoothing=1 / 502)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels).value == pytest.approx(log_t.exp().item(), rel=1e-4)


def test_negative_log_likelihood_is_scikit_learns():
    from sklearn.metrics import log_loss

    logits, labels = overconfident(300)
    expected = log_loss(labels, softmax(logits, 1.7), labels=range(5))
    assert negative_log_likelihood(logits, labels, 1.7) == pytest.approx(expected, rel=1e-9)


def test_scaling_mends_the_calibration_error_and_no_prediction():
    logits, labels = overconfident()
    scaled = softmax(logits, fit_temperature(logits, labels).value)
    assert reliability(softmax(logits), labels, 15).error > 0.1
    assert reliability(scaled, labels, 15).error < 0.03
    np.testing.assert_array_equal(scaled.argmax(1), logits.argmax(1))


def test_every_image_right_gives_a_finite_temperature_and_says_so():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 270)
    logits = rng.normal(0, 0.3, (270, 5))
    logits[np.arange(270), labels] += 3
    fitted = fit_temperature(logits, labels)
    assert LOWEST < fitted.value < 1
    assert "All 270 validation images" in fitted.note
    confidence = softmax(logits, fitted.value).max(1).mean()
    assert 0.98 < confidence < 1 - 1e-4  # close to (N+1)/(N+2), not to certainty


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((50, 3)), np.arange(50) % 3),
        (np.eye(3)[(np.arange(51) + 1) % 3] * 5, np.arange(51) % 3),
    ],
    ids=["constant", "always wrong"],
)
def test_logits_that_tell_nothing_leave_the_temperature_alone(logits, labels):
    fitted = fit_temperature(logits, labels)
    assert fitted.value == 1.0
    assert "stays 1" in fitted.note


def test_no_validation_images_leave_the_temperature_alone():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)).value == 1.0


def test_calibration_error_by_hand():
    """Two bins of two: 0.6 and 0.7 with one right, 0.8 and 0.9 with both right."""
    top = np.array([0.9, 0.6, 0.8, 0.7])
    found = reliability(np.stack([top, 1 - top], axis=1), np.array([0, 0, 0, 1]), 2)
    np.testing.assert_allclose(found.confidence, [0.65, 0.85])
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    assert found.error == pytest.approx(0.15)


def test_calibration_error_does_not_depend_on_the_order_of_images():
    rng = np.random.default_rng(0)
    top = np.round(rng.uniform(0.5, 1, 200), 1)  # many equal confidences
    probabilities, labels = np.stack([top, 1 - top], axis=1), rng.integers(0, 2, 200)
    order = rng.permutation(200)
    error = reliability(probabilities, labels, 15).error
    assert reliability(probabilities[order], labels[order], 15).error == pytest.approx(error)


def test_fewer_images_than_bins():
    found = reliability(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), 15)
    assert found.images.tolist() == [1, 1]


def bent(n: int, kind: str, seed: int = 0):
    """Labels drawn from logits that were bent: by class ("vector"), or their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, 5))
    true = logits * np.linspace(0.3, 1.5, 5) + np.linspace(-1, 1, 5)
    if kind == "isotonic":  # an even share of each prediction is a blind guess
        true = np.log(0.1 + 0.5 * softmax(logits))
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)
    return logits.astype(np.float32), labels, true


@pytest.mark.parametrize("kind", ["vector", "isotonic"])
def test_the_method_that_mends_what_is_wrong_is_chosen(kind):
    logits, labels, true = bent(4000, kind)
    found = calibrate("auto", logits, labels, seed=0)
    assert found.method == kind
    assert found.held_out[kind].gain > found.held_out[kind].error > 0
    fresh, fresh_labels, true = bent(4000, kind, seed=1)
    rows = np.arange(len(fresh))
    nll = {
        name: -fit(name, logits, labels).logarithms(fresh)[rows, fresh_labels].mean()
        for name in ("temperature", kind)
    }
    best = negative_log_likelihood(true, fresh_labels)  # of the truth: no method does better
    assert nll[kind] - best < 0.5 * (nll["temperature"] - best)
    assert nll["temperature"] - nll[kind] == pytest.approx(found.held_out[kind].gain, rel=0.5)


def test_a_temperature_is_kept_where_it_is_enough():
    logits, labels = overconfident(1000)
    found = calibrate("auto", logits, labels, seed=0)
    assert found.method == "temperature"
    assert "No other method" in found.reason
    assert set(found.held_out) == {"temperature", "vector", "isotonic"}
    assert found.held_out["isotonic"].gain < found.held_out["isotonic"].error


def test_few_images_and_no_mistakes_tell_no_more_than_a_temperature():
    logits, labels, _ = bent(49, "vector")
    assert "fewer than 50" in calibrate("auto", logits, labels, 0).reason
    right = np.eye(5, dtype=np.float32)[np.arange(100) % 5] * 4
    found = calibrate("auto", right, np.arange(100) % 5, 0)
    assert (found.method, found.held_out) == ("temperature", {})
    assert "classified right" in found.reason
    same = np.zeros((100, 5), np.float32)  # the labels' shares alone would be learnt, as biases
    found = calibrate("auto", same, np.minimum(np.arange(100) % 5, 2), 0)
    assert found.method == "temperature"
    assert "do not tell a temperature" in found.reason


def test_what_is_asked_for_is_taken_though_it_is_worse():
    logits, labels = overconfident(200)
    found = calibrate("isotonic", logits, labels, seed=0)
    assert found.method == "isotonic"
    assert found.held_out["isotonic"].gain < 0
    assert alike(found, logits, labels).method == "isotonic"


def test_the_choice_does_not_depend_on_chance():
    logits, labels, _ = bent(300, "vector")
    assert cross_validate(logits, labels, 3) == cross_validate(logits, labels, 3)
    assert cross_validate(logits, labels, 3) != cross_validate(logits, labels, 4)


def test_vector_scaling_finds_the_classes_that_were_bent():
    logits, labels, _ = bent(20_000, "vector")
    found = fit("vector", logits, labels)
    np.testing.assert_allclose(
        found.scale / found.temperature.value, np.linspace(0.3, 1.5, 5), atol=0.1
    )
    np.testing.assert_allclose(found.bias - found.bias.mean(), np.linspace(-1, 1, 5), atol=0.1)


def test_vector_scaling_of_few_images_stays_near_a_temperature():
    """Twelve images, five classes, one of them without any: alone, its bias would run away."""
    logits, labels, _ = bent(12, "vector")
    found = fit("vector", logits, np.where(labels == 4, 3, labels))
    assert np.abs(found.bias).max() < 3
    assert np.abs(found.scale - 1).max() < 1.5


def test_isotonic_functions_rise_and_are_scikit_learns_at_the_knots():
    from sklearn.isotonic import IsotonicRegression

    logits, labels, _ = bent(2000, "isotonic")
    found = fit("isotonic", logits, labels)
    assert (np.diff(found.heights, axis=1) > 0).all()
    assert (found.heights > 0).all()
    given = softmax(logits, found.temperature.value)
    images = (labels == 2).sum()
    targets = np.where(labels == 2, (images + 1) / (images + 2), 1 / (len(labels) - images + 2))
    expected = IsotonicRegression(out_of_bounds="clip").fit(given[:, 2], targets).predict(KNOTS)
    np.testing.assert_allclose(found.heights[2], expected, atol=1.1e-3)


def test_isotonic_probabilities_are_some_at_the_ends_and_for_unseen_classes():
    logits, labels, _ = bent(200, "isotonic")
    found = fit("isotonic", logits, np.where(labels == 4, 0, labels))
    np.testing.assert_array_equal(found.heights[4], KNOTS)  # no image shows it: left as it is
    extreme = np.array([[90, -90, -90, -90, -90], [0, 0, 0, 0, 0], [-90, -90, -90, -90, 90]], "f4")
    probabilities = np.exp(found.logarithms(extreme))
    assert np.isfinite(probabilities).all()
    assert (probabilities > 0).sum() >= 14  # of the class without images alone it may be 0
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_classes_on_one_step_of_the_function_do_not_tie():
    """Both probabilities lie where the regression is flat: the order stays that of the logits."""
    rng = np.random.default_rng(0)
    logits = np.repeat(rng.normal(0, 0.2, (300, 1)), 2, axis=1) * [1, -1]
    found = fit("isotonic", logits.astype(np.float32), rng.integers(0, 2, 300))
    close = found.logarithms(np.array([[0.02, 0.0], [0.0, 0.02]], "f4"))
    assert close[0, 0] != close[0, 1]
    assert close[1, 0] != close[1, 1]
