"""Conversion for another runtime: it answers as the bundle does, or nothing is written."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.bundle import Bundle
from tasks.data.shards import SPLITS, write_index
from tasks.edge import convert as converting
from tasks.edge.convert import compare, convert, verification_images
from tasks.edge.environments import environment, interpreter, pinned
from tasks.edge.targets import CONVERTED
from tasks.errors import BundleError, DataError, ServiceError
from tasks.params import Settings

NOWHERE = "http://127.0.0.1:9/simple"  # the discard port: refuses at once
LARGE = "VISIONLOOP_TEST_CONVERTERS"
FORMATS = [("executorch", "pte"), ("tflite", "tflite"), ("coreml", "mlpackage")]


def _install(target: str, settings: Settings) -> Settings:
    """The settings, once the target's environment is installed from the real index."""
    try:
        interpreter(target, settings)
    except ServiceError as error:
        # A laptop may be offline; .ci/run has an index, and a lack of it fails.
        missing = f"converting needs an environment of its own from a package index: {error}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return settings


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A state folder in which the environment of openvino is installed, from the real index."""
    return _install("openvino", Settings(home=tmp_path_factory.mktemp("state")))


@pytest.fixture
def photographs(tmp_path: Path, digit_images: np.ndarray) -> Path:
    """70 scans as files."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for index, image in enumerate(digit_images[1200:1270]):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


def test_openvino_answers_as_the_bundle_does(
    digits_bundle: Bundle, photographs: Path, installed: Settings, tmp_path: Path
) -> None:
    images = verification_images(digits_bundle, photographs)
    output = tmp_path / "openvino"
    found = convert(digits_bundle, "openvino", images, output, installed)
    assert (found.images, found.agreement) == (70, 1.0)
    assert found.max_difference < 1e-5
    assert {path.name for path in output.iterdir()} == {"model.xml", "model.bin", "model.json"}
    about = json.loads((output / "model.json").read_text())
    assert about["classes"] == digits_bundle.info.classes
    assert about["verified"]["images"] == 70
    assert set(about["sha256"]) == {"model.xml", "model.bin"}
    assert any(package.startswith("openvino==") for package in about["packages"])


@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    not (os.environ.get("CI") or LARGE in os.environ),
    reason=f"three environments with 5 GB of PyTorch each, which .ci/run makes; here: {LARGE}=1",
)
@pytest.mark.parametrize(("target", "model"), [(name, f"model.{end}") for name, end in FORMATS])
def test_what_starts_from_pytorch_answers_as_the_bundle_does(
    digits_bundle: Bundle, photographs: Path, tmp_path: Path, target: str, model: str
) -> None:
    settings = _install(target, Settings(home=tmp_path / "state"))
    images = verification_images(digits_bundle, photographs)
    output = tmp_path / target
    found = convert(digits_bundle, target, images, output, settings)
    assert (found.images, found.agreement) == (70, 1.0)
    assert found.max_difference < 1e-5
    assert {path.name for path in output.iterdir()} == {model, "model.json"}
    about = json.loads((output / "model.json").read_text())
    elsewhere = CONVERTED[target].elsewhere
    assert about["program" if elsewhere else "verified"]["images"] == 70
    if elsewhere:
        assert about["verified"] is None
        assert about["notes"] == [f"converted, not verified here: {elsewhere}"]


def test_the_environment_is_isolated_and_installed_once(installed: Settings) -> None:
    python = interpreter("openvino", installed)
    before = python.lstat().st_mtime_ns
    assert interpreter("openvino", installed).lstat().st_mtime_ns == before
    code = "import importlib.util as u; print([n for n in ('torch', 'onnx') if u.find_spec(n)])"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_offline_it_says_what_is_missing_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ServiceError, match="cannot be installed") as error:
        interpreter("openvino", settings)
    assert "UV_INDEX_URL" in str(error.value)
    assert pinned("openvino")[0] in str(error.value)
    assert not environment("openvino", settings).exists()
    assert [p.suffix for p in environment("openvino", settings).parent.iterdir()] in ([], [".lock"])


def test_a_model_that_answers_otherwise_is_not_written(
    digits_bundle: Bundle,
    make_bundle: object,
    photographs: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The converter's answers are those of another model, as of a faulty converter."""
    other = make_bundle(1e-4, "other")  # type: ignore[operator]
    images = verification_images(digits_bundle, photographs)

    def answers(python: Path, target: str, bundle: Bundle, given: np.ndarray, folder: Path):
        (folder / "model.xml").write_text("<net/>")
        return other.predict(given)[0]

    monkeypatch.setattr(converting, "_run", answers)
    monkeypatch.setattr(converting, "interpreter", lambda target, settings: Path("python"))
    with pytest.raises(BundleError, match=r"does not answer as .* on 70 images .*nothing was"):
        convert(digits_bundle, "openvino", images, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_a_comparison_is_of_every_image(digits_bundle: Bundle, digit_images: np.ndarray) -> None:
    images = digit_images[:130]
    right, _ = digits_bundle.predict(images)
    assert compare(digits_bundle, images, right).agreement == 1
    wrong = right.copy()
    wrong[129] = np.roll(wrong[129], 1)
    found = compare(digits_bundle, images, wrong)
    assert found.agreement == pytest.approx(129 / 130)
    assert found.max_difference == pytest.approx(np.abs(wrong - right).max())
    for broken in (right[:129], np.full_like(right, np.nan)):
        with pytest.raises(BundleError, match="the converted model answers"):
            compare(digits_bundle, images, broken)


def test_verification_images_are_the_validation_splits(
    digits_bundle: Bundle,
    digit_images: np.ndarray,
    digit_labels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no shards"):
        verification_images(digits_bundle, None)
    shards = tmp_path / "data/shards"
    shards.mkdir(parents=True)
    for number, split in enumerate(SPLITS):
        rows = slice(600 * number, 600 * number + 597)
        np.save(shards / f"{split}_images.npy", digit_images[rows])
        np.save(shards / f"{split}_labels.npy", digit_labels[rows])
        np.save(shards / f"{split}_statistics.npy", np.zeros((597, 5), np.float32))
        np.save(shards / f"{split}_hashes.npy", np.zeros(597, "S32"))
        (shards / f"{split}_paths.json").write_text(json.dumps([str(n) for n in range(597)]))
    write_index(shards, digits_bundle.info.classes, digits_bundle.info.input)
    images = verification_images(digits_bundle, None)
    assert images.shape == (512, 8, 8, 3)
    np.testing.assert_array_equal(images[[0, -1]], digit_images[[600, 1196]])
    other = digits_bundle.info.input.model_copy(update={"resize": "crop"})
    write_index(shards, digits_bundle.info.classes, other)
    with pytest.raises(DataError, match="prepared for another model"):
        verification_images(digits_bundle, None)


def test_a_folder_without_usable_images_is_named(digits_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    with pytest.raises(DataError, match="no image files"):
        verification_images(digits_bundle, tmp_path / "given")
    (tmp_path / "given" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        verification_images(digits_bundle, tmp_path / "given")
