"""Calibration and strangeness inside a real graph, on both runtimes, against numpy."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from tasks.errors import CompressionError
from tasks.evaluation.calibration import METHODS
from tasks.evaluation.calibrators import TemperatureScaling, fit
from tasks.evaluation.folding import check_elsewhere, check_folded, fold, run_folded
from tasks.evaluation.graph import run_graph
from tasks.evaluation.ood_scores import Energy, MaxSoftmax, fit_scores
from tasks.evaluation.temperature import Temperature
from tasks.metrics.reliability import softmax
from tasks.runtime import available

SCORES = ("energy", "max_softmax", "mahalanobis", "relative_mahalanobis")


@pytest.fixture(scope="module")
def answers(built, digits):
    """Logits and embedding of all images by the int8 candidate, and the labels."""
    source = built / "data/candidates/int8.onnx"
    return (*run_graph(source, digits[0], ["logits", "embedding"]), digits[1])


@pytest.mark.parametrize("temperature", [0.31, 1.0, 7.3])
def test_folded_graph_gives_the_calibrated_probabilities(built, digits, tmp_path, temperature):
    source, target = built / "data/candidates/int8.onnx", tmp_path / "model.onnx"
    fold(source, TemperatureScaling(Temperature(temperature)), None, target)
    onnx.checker.check_model(onnx.load(target), full_check=True)
    before, after = onnxruntime.InferenceSession(source), onnxruntime.InferenceSession(target)
    assert [output.name for output in after.get_outputs()] == ["probabilities", "embedding"]
    images = digits[0][:200]
    logits, embedding = before.run(["logits", "embedding"], {"images": images})
    probabilities, kept = after.run(None, {"images": images})
    np.testing.assert_allclose(probabilities, softmax(logits, temperature), atol=1e-6)
    np.testing.assert_array_equal(kept, embedding)
    assert after.run(None, {"images": images[:1]})[0].shape == (1, 10)


@pytest.mark.parametrize("runtime", available())
@pytest.mark.parametrize(
    ("method", "name"), [*zip(METHODS, SCORES, strict=False), (METHODS[2], SCORES[3])]
)
def test_every_method_and_score_is_numpys(built, digits, answers, tmp_path, method, name, runtime):
    source, target = built / "data/candidates/int8.onnx", tmp_path / "model.onnx"
    logits, embedding, labels = answers
    calibrator = fit(method, logits[1000:1300], labels[1000:1300])
    score = next(s for s in fit_scores(embedding[:1000], labels[:1000]) if s.name == name)
    fold(source, calibrator, score, target)
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    images = np.concatenate([digits[0][1300:1400], noise, np.zeros((1, 16, 16, 3), np.uint8)])
    before = run_graph(source, images, ["logits", "embedding"], runtime)
    found = run_folded(target, images, score, runtime)
    assert [array.shape for array in found] == [(141, 10), (141, 32), (141,)]
    expected = np.exp(calibrator.logarithms(before[0]))
    np.testing.assert_allclose(found[0], expected, atol=2e-6 * calibrator.steepness)
    np.testing.assert_allclose(found[0].sum(1), 1, atol=1e-5)
    wanted = score(*before)
    np.testing.assert_allclose(found[2], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert np.median(wanted[100:140]) > np.median(wanted[:100])  # noise is stranger
    alone = run_folded(target, images[:1], score, runtime)
    np.testing.assert_allclose(alone[2], found[2][:1], rtol=1e-3)
    check_folded(found, before, calibrator, score, target)
    check_elsewhere(source, target, images, calibrator, score)


def test_logits_that_would_overflow_have_scores():
    logits = np.array([[200.0, -200.0], [0.0, 0.0], [-300.0, -300.0]], np.float32)
    np.testing.assert_allclose(Energy()(logits, logits), [-200, -np.log(2), 300 - np.log(2)])
    np.testing.assert_allclose(MaxSoftmax()(logits, logits), [0, 0.5, 0.5], atol=1e-12)


def test_a_graph_that_gives_something_else_is_refused(built, answers, tmp_path):
    source, target = built / "data/candidates/int8.onnx", tmp_path / "model.onnx"
    logits, embedding, labels = answers
    calibrator = TemperatureScaling(Temperature(1.5))
    score = fit_scores(embedding, labels)[2]
    right = [softmax(logits, 1.5), embedding, score(logits, embedding)]
    check_folded(right, [logits, embedding], calibrator, score, target)
    wrong = TemperatureScaling(Temperature(1.6))
    with pytest.raises(CompressionError, match="probabilities differ by"):
        check_folded(right, [logits, embedding], wrong, score, target)
    other = replace(score, classes=replace(score.classes, means=score.classes.means + 0.1))
    with pytest.raises(CompressionError, match="the score mahalanobis differs by"):
        check_folded(right, [logits, embedding], calibrator, other, target)
    fold(source, calibrator, None, target)
    with pytest.raises(CompressionError, match="no output ood_score"):
        run_folded(target, np.zeros((1, 16, 16, 3), np.uint8), score, "onnxruntime")


def test_folding_twice_is_refused(built, tmp_path):
    calibrator = TemperatureScaling(Temperature(2.0))
    fold(built / "data/candidates/int8.onnx", calibrator, None, tmp_path / "once.onnx")
    with pytest.raises(CompressionError, match=r'once.onnx has no output "logits"'):
        fold(tmp_path / "once.onnx", calibrator, None, tmp_path / "twice.onnx")
    assert not (tmp_path / "twice.onnx").exists()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(built, tmp_path, temperature):
    calibrator = TemperatureScaling(Temperature(temperature))
    with pytest.raises(CompressionError, match="not a positive number"):
        fold(built / "data/candidates/int8.onnx", calibrator, None, tmp_path / "m.onnx")
