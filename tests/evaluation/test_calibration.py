"""Temperature scaling on logits whose right temperature is known, and inside a real graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tasks.errors import CompressionError
from tasks.evaluation.calibration import LOWEST, fit_temperature, fold_temperature
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


def test_the_fit_is_the_one_torch_finds():
    logits, labels = overconfident(500)
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    x, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    optimizer = torch.optim.LBFGS(
        [log_t], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x / log_t.exp(), y)
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


@pytest.mark.parametrize("temperature", [0.31, 1.0, 7.3])
def test_folded_graph_gives_the_calibrated_probabilities(built, digits, tmp_path, temperature):
    source, target = built / "data/candidates/int8.onnx", tmp_path / "model.onnx"
    fold_temperature(source, temperature, target)
    onnx.checker.check_model(onnx.load(target), full_check=True)
    before, after = onnxruntime.InferenceSession(source), onnxruntime.InferenceSession(target)
    assert [output.name for output in after.get_outputs()] == ["probabilities", "embedding"]
    images = digits[0][:200]
    logits, embedding = before.run(["logits", "embedding"], {"images": images})
    probabilities, kept = after.run(None, {"images": images})
    np.testing.assert_allclose(probabilities, softmax(logits, temperature), atol=1e-6)
    np.testing.assert_array_equal(kept, embedding)
    assert after.run(None, {"images": images[:1]})[0].shape == (1, 10)


def test_folding_twice_is_refused(built, tmp_path):
    fold_temperature(built / "data/candidates/int8.onnx", 2.0, tmp_path / "once.onnx")
    with pytest.raises(CompressionError, match=r'once.onnx has no output "logits"'):
        fold_temperature(tmp_path / "once.onnx", 2.0, tmp_path / "twice.onnx")
    assert not (tmp_path / "twice.onnx").exists()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(built, tmp_path, temperature):
    with pytest.raises(CompressionError, match="not a positive number"):
        fold_temperature(built / "data/candidates/int8.onnx", temperature, tmp_path / "m.onnx")
