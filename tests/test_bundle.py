"""The release bundle: whole, signed, of a known schema, and it predicts."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tasks.bundle import FILES, open_bundle, write_bundle
from tasks.decision import read_decision
from tasks.errors import BundleError
from tasks.pixels import STATISTICS, UnreadableImage
from tasks.signing import sign_directory


def rewrite_info(bundle, settings, **changes) -> None:
    """Change bundle.json and sign again, as a newer version of the product would have."""
    path = bundle.path / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    sign_directory(bundle.path, settings)


def test_a_bundle_predicts_what_it_was_built_from(digits_bundle, digit_images, digit_labels):
    probabilities, embedding = digits_bundle.predict(digit_images[1200:])
    assert probabilities.dtype == embedding.dtype == np.float32
    assert len(probabilities) == len(embedding) == 597
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    accuracy = (probabilities.argmax(1) == digit_labels[1200:]).mean()
    assert accuracy == pytest.approx(digits_bundle.info.measurements.accuracy, abs=1e-9)


def test_images_are_predicted_alone_as_in_a_batch(digits_bundle, digit_images):
    batch, _ = digits_bundle.predict(digit_images[:5])
    alone = np.concatenate([digits_bundle.predict(digit_images[i : i + 1])[0] for i in range(5)])
    np.testing.assert_allclose(alone, batch, atol=1e-6)
    reversed_view = digit_images[:5][::-1]  # not contiguous
    np.testing.assert_allclose(digits_bundle.predict(reversed_view)[0], batch[::-1], atol=1e-6)


def test_a_file_becomes_the_input_that_the_contract_says(digits_bundle, digit_images, png):
    np.testing.assert_array_equal(digits_bundle.pixels(png(digit_images[3])), digit_images[3])
    large = np.repeat(np.repeat(digit_images[3], 4, 0), 6, 1)
    assert digits_bundle.pixels(png(large)).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage):
        digits_bundle.pixels(b"no image")


def test_the_reference_is_complete(digits_bundle):
    reference = digits_bundle.reference()
    assert set(reference) == {
        "probabilities", "embedding", "statistics", "labels", "hashes", "statistic_names",
    }  # fmt: skip
    assert tuple(reference["statistic_names"]) == STATISTICS
    assert len({len(reference[name]) for name in reference if name != "statistic_names"}) == 1


def test_a_bundle_for_openvino_answers_as_one_for_onnx_runtime(make_bundle, digit_images, caplog):
    one, other = make_bundle(), make_bundle(name="other", runtime="openvino")
    assert (one.runtime, other.runtime) == ("onnxruntime", "openvino")
    for count in (1, 5, 64):
        for found, wanted in zip(
            other.predict(digit_images[:count]), one.predict(digit_images[:count]), strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert caplog.text == ""


def test_a_bundle_that_names_no_runtime_is_for_onnx_runtime(digits_bundle, settings):
    """As all were before there was another."""
    plain = digits_bundle.info.runtime.model_dump(exclude={"name"})
    rewrite_info(digits_bundle, settings, runtime=plain)
    assert "name" not in json.loads((digits_bundle.path / "bundle.json").read_text())["runtime"]
    assert open_bundle(digits_bundle.path, settings).info.runtime.name == "onnxruntime"


def test_without_openvino_its_bundle_runs_on_onnx_runtime_and_says_so_once(
    make_bundle, settings, digit_images
):
    bundle = make_bundle(runtime="openvino")
    wanted = bundle.predict(digit_images[:3])[0]
    code = (
        "import logging, sys\n"
        "sys.modules['openvino'] = None  # as where it is not installed\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from tasks.bundle import open_bundle\n"
        "from tasks.params import Settings\n"
        "bundle = open_bundle(sys.argv[1], Settings(home=Path(sys.argv[2])))\n"
        "images = np.load(sys.argv[3])\n"
        "answers = [bundle.predict(images)[0] for _ in range(3)]\n"
        "np.save(sys.argv[3], answers[-1])\n"
        "print(bundle.info.runtime.name, bundle.runtime)\n"
    )
    images = bundle.path.with_name("images.npy")
    np.save(images, digit_images[:3])
    given = [str(bundle.path), str(settings.home), str(images)]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.stdout == "openvino onnxruntime\n", done.stderr
    (warning,) = done.stderr.splitlines()
    assert warning.startswith(f"WARNING {bundle.path} was measured on OpenVINO")
    assert "pip install 'visionloop[openvino]'" in warning
    np.testing.assert_allclose(np.load(images), wanted, atol=1e-5)


def test_a_bundle_without_a_decision_always_answers(digits_bundle, settings, digit_images):
    rewrite_info(digits_bundle, settings, decision=None)
    bundle = open_bundle(digits_bundle.path, settings)
    assert bundle.info.decision is None
    decision = read_decision(None)
    for row in bundle.predict(digit_images[:20])[0]:
        assert not decision.abstains(row)
        assert decision.prediction_set(row) == [row.argmax()]


def test_a_threshold_that_this_release_does_not_know_is_refused(digits_bundle, settings):
    later = {"abstain_below": None, "set_from": 0.1, "set_coverage": 0.9, "colour_from": 0.5}
    rewrite_info(digits_bundle, settings, decision=later)
    with pytest.raises(BundleError, match=r"decision\.colour_from"):
        open_bundle(digits_bundle.path, settings)


def test_a_bundle_from_before_scores_and_calibrations_opens(digits_bundle, settings, digit_images):
    """bundle.json as it was: none of the keys that came later."""
    path = digits_bundle.path / "bundle.json"
    values = json.loads(path.read_text())
    for key in ("calibration", "ood_score"):
        del values[key]
    del values["decision"]["strange_from"]
    path.write_text(json.dumps(values))
    sign_directory(digits_bundle.path, settings)
    old = open_bundle(digits_bundle.path, settings)
    assert (old.info.calibration, old.info.ood_score) == ("temperature", None)
    assert len(old.judge(digit_images[:3])) == 2
    assert not old.info.decision.strange(None)
    assert not old.info.decision.strange(1e9)


def test_a_bundle_with_a_score_gives_it_beside_the_rest(make_bundle, digit_images):
    bundle = make_bundle(strange_from=-5.0)
    probabilities, embedding, scores = bundle.judge(digit_images[:20])
    np.testing.assert_array_equal(probabilities, bundle.predict(digit_images[:20])[0])
    assert (embedding.shape, scores.shape) == ((20, 64), (20,))
    assert [bundle.info.decision.strange(float(one)) for one in scores] == list(scores >= -5)


def test_reopened_it_is_the_same(digits_bundle, settings):
    again = open_bundle(str(digits_bundle.path), settings)
    assert (again.digest, again.info) == (digits_bundle.digest, digits_bundle.info)
    assert len(again.digest) == 64


def test_the_digest_stands_for_the_contents(make_bundle):
    first, same, other = make_bundle(), make_bundle(name="same"), make_bundle(1e-4, "other")
    assert first.digest == same.digest != other.digest


def test_a_missing_bundle_says_how_to_get_one(settings, tmp_path):
    with pytest.raises(BundleError, match=r"no bundle at .*nowhere; `dvc repro` builds one"):
        open_bundle(tmp_path / "nowhere", settings)


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_an_altered_file_is_named(digits_bundle, settings, name):
    path = digits_bundle.path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=name if name in FILES else "signature"):
        open_bundle(digits_bundle.path, settings)


def test_a_truncated_model_is_named(digits_bundle, settings):
    path = digits_bundle.path / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"model\.onnx"):
        open_bundle(digits_bundle.path, settings)


@pytest.mark.parametrize(
    "changes", [{"schema_version": 2}, {"surprise": 1}, {"classes": "0123"}, {"temperature": None}]
)
def test_another_schema_is_refused_though_signed(digits_bundle, settings, changes):
    rewrite_info(digits_bundle, settings, **changes)
    with pytest.raises(
        BundleError, match=r"bundle\.json is not of schema 1.*" + next(iter(changes))
    ):
        open_bundle(digits_bundle.path, settings)


def test_a_bundle_of_before_the_later_keys_opens(digits_bundle, settings, digit_images, png):
    """Its contract means what it meant: RGB, no normalisation, no margin."""
    old = {"size": 8, "resize": "stretch", "max_pixels": 50_000_000}
    assert set(old) < set(json.loads((digits_bundle.path / "bundle.json").read_text())["input"])
    rewrite_info(digits_bundle, settings, input=old)
    opened = open_bundle(digits_bundle.path, settings)
    assert opened.info.input == digits_bundle.info.input
    np.testing.assert_array_equal(opened.pixels(png(digit_images[3])), digit_images[3])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "sepia"}, "input.colour"),
        ({"normalise": {"method": "gamma"}}, "input.normalise"),
        ({"normalise": {"method": "zscore"}}, "input.normalise.zscore.spread"),
        ({"sharpen": 2}, "input.sharpen"),
    ],
)
def test_an_input_that_this_version_does_not_know_is_refused(
    digits_bundle, settings, changes, named
):
    known = json.loads((digits_bundle.path / "bundle.json").read_text())["input"]
    rewrite_info(digits_bundle, settings, input=known | changes)
    with pytest.raises(BundleError, match=named):
        open_bundle(digits_bundle.path, settings)


def test_a_bundle_carries_its_figures_and_one_of_before_has_none(digits_bundle, settings):
    assert digits_bundle.metrics()["deployed"]["accuracy"]["value"] > 0.9
    (digits_bundle.path / "metrics.json").unlink()
    sign_directory(digits_bundle.path, settings)
    assert open_bundle(digits_bundle.path, settings).metrics() is None


def test_json_that_is_none_is_refused_though_signed(digits_bundle, settings):
    (digits_bundle.path / "bundle.json").write_text("{")
    sign_directory(digits_bundle.path, settings)
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
        open_bundle(digits_bundle.path, settings)


def test_an_incomplete_bundle_is_not_written(digits_bundle, settings, tmp_path):
    def fill(directory):
        (directory / "model.onnx").write_bytes(b"x")

    with pytest.raises(BundleError, match=r"lacks reference\.npz, .*MODEL_CARD\.md, metrics"):
        write_bundle(tmp_path / "new", digits_bundle.info, settings, fill)
    assert not (tmp_path / "new").exists()


def test_a_failed_build_leaves_the_bundle_that_was_there(digits_bundle, settings):
    def fill(directory):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_bundle(digits_bundle.path, digits_bundle.info, settings, fill)
    assert open_bundle(digits_bundle.path, settings).digest == digits_bundle.digest


def test_a_bundle_opens_without_torch_and_mlflow(digits_bundle, settings):
    code = f"""
import sys
from pathlib import Path
import numpy as np
from tasks.bundle import open_bundle
from tasks.params import Settings
bundle = open_bundle({str(digits_bundle.path)!r}, Settings(home=Path({str(settings.home)!r})))
bundle.predict(np.zeros((1, 8, 8, 3), np.uint8))
print(sorted({{"torch", "mlflow", "pandas", "sklearn", "onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
