"""The exported folder: it runs with three packages, and answers what the bundle answers."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tasks.bundle import Bundle, open_bundle
from tasks.edge.folder import check_output, export_edge
from tasks.errors import BundleError
from tasks.params import Settings
from tasks.signing import sign_directory

Run = Callable[..., subprocess.CompletedProcess[str]]

# Gives the pixels of every image named, as one .npy file: python -c PIXELS FOLDER TARGET IMAGE...
PIXELS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from run import Model
model = Model(Path(sys.argv[1]))
np.save(sys.argv[2], np.stack([model.pixels(Path(name)) for name in sys.argv[3:]]))
"""
LACKING = """
import importlib.util, sys
print([name for name in sys.argv[1:] if importlib.util.find_spec(name) is not None])
"""


@pytest.fixture
def folder(digits_bundle: Bundle, tmp_path: Path) -> Path:
    export_edge(digits_bundle, tmp_path / "edge")
    return tmp_path / "edge"


@pytest.fixture
def pictures(tmp_path: Path, digit_images: np.ndarray) -> list[Path]:
    """Files of many kinds: scans, photographs of any shape, alpha, 16 bits, EXIF orientation."""
    photograph = load_sample_image("flower.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = (photograph[..., 0].astype(np.uint16) * 257)[:100]
    alpha = np.dstack([photograph, photograph[..., 1]])[50:200, :90]
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / name for name in ("a.png", "b.jpg", "c.jpg", "d.png", "e.png")]
    Image.fromarray(digit_images[3]).save(paths[0])
    Image.fromarray(photograph).save(paths[1])
    Image.fromarray(photograph[:123]).save(paths[2], exif=turned)
    Image.fromarray(deep).save(paths[3])
    Image.fromarray(alpha, "RGBA").save(paths[4])
    return paths


def test_the_environment_has_nothing_but_what_a_device_has(
    on_device: Run, foreign: list[str]
) -> None:
    assert {"torch", "pydantic", "onnx", "scipy", "pandas"} <= set(foreign)
    done = on_device("-c", LACKING, *foreign)
    assert done.stdout == "[]\n", done.stderr


def test_it_answers_as_the_bundle_does(
    on_device: Run, folder: Path, digits_bundle: Bundle, pictures: list[Path]
) -> None:
    done = on_device(folder / "run.py", "--json", *pictures)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    wanted, _ = digits_bundle.predict(np.stack([digits_bundle.pixels(path) for path in pictures]))
    classes = digits_bundle.info.classes
    assert [row["filename"] for row in rows] == [str(path) for path in pictures]
    assert [row["label"] for row in rows] == [classes[best] for best in wanted.argmax(1)]
    given = [[row["probabilities"][label] for label in classes] for row in rows]
    np.testing.assert_allclose(given, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "contract",
    [
        {"resize": "stretch", "normalise": {"method": "zscore", "spread": 60.0}},
        {"resize": "letterbox", "normalise": {"method": "percentile", "low": 1.0, "high": 99.0}},
        {"resize": "crop", "margin": 4, "colour": "grey"},
        {"resize": "crop", "normalise": {"method": "clahe", "clip": 2.0, "tiles": 4}},
    ],
)
def test_its_pixels_are_those_of_training_byte_for_byte(
    on_device: Run,
    digits_bundle: Bundle,
    settings: Settings,
    pictures: list[Path],
    contract: dict[str, object],
    tmp_path: Path,
) -> None:
    path = digits_bundle.path / "bundle.json"
    info = json.loads(path.read_text())
    info["input"] |= {"size": 48, **contract}
    path.write_text(json.dumps(info))
    sign_directory(digits_bundle.path, settings)
    bundle = open_bundle(digits_bundle.path, settings)
    export_edge(bundle, tmp_path / "edge")
    target = tmp_path / "pixels.npy"
    done = on_device("-c", PIXELS, tmp_path / "edge", target, *pictures)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(target), np.stack([bundle.pixels(p) for p in pictures]))


def test_it_prints_a_line_an_image_and_names_what_is_none(
    on_device: Run, folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    done = on_device(folder / "run.py", pictures[0], text, tmp_path / "nowhere.png", pictures[1])
    assert done.returncode == 1
    first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert first[:2] == [str(pictures[0]), "3"]
    assert 0.5 < float(first[2]) <= 1
    assert second[0] == str(pictures[1])
    assert f"error: {text}: not an image in a known format" in done.stderr
    assert "nowhere.png: broken image: [Errno 2] No such file" in done.stderr


def test_an_altered_model_is_not_run(on_device: Run, folder: Path, pictures: list[Path]) -> None:
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\x00")
    done = on_device(folder / "run.py", pictures[0])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {model} was altered; copy it anew\n"


def test_the_runner_is_short(folder: Path) -> None:
    assert len((folder / "run.py").read_text().splitlines()) <= 70


def test_an_export_is_replaced_only_when_asked_and_nothing_else_ever(
    folder: Path, digits_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="holds an earlier export; --force replaces it"):
        check_output(folder, force=False)
    check_output(folder, force=True)
    before = {path.name for path in folder.iterdir()}
    export_edge(digits_bundle, folder)
    assert {path.name for path in folder.iterdir()} == before
    (tmp_path / "photos").mkdir()
    check_output(tmp_path / "photos", force=False)
    (tmp_path / "photos" / "1.jpg").write_bytes(b"mine")
    for path in (tmp_path / "photos", tmp_path / "photos" / "1.jpg"):
        with pytest.raises(BundleError, match="is no earlier export"):
            check_output(path, force=True)


def test_an_export_that_fails_leaves_nothing(
    digits_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digits_bundle.path / "model.onnx").unlink()
    with pytest.raises(FileNotFoundError):
        export_edge(digits_bundle, tmp_path / "out" / "edge")
    assert list((tmp_path / "out").iterdir()) == []


def test_requirements_name_the_three_packages_with_versions_here(folder: Path) -> None:
    import onnxruntime

    lines = (folder / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in lines] == ["numpy", "onnxruntime", "pillow"]
    assert f"onnxruntime=={onnxruntime.__version__}" in lines
    assert sys.version_info >= (3, 11)
