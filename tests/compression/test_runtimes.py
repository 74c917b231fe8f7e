"""A trained network answers alike in PyTorch, ONNX Runtime and OpenVINO, in float and int8."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from tasks.compression.export import export
from tasks.compression.quantize import quantize
from tasks.compression.runtime import logit_error
from tasks.data.shards import Shards
from tasks.metrics.reliability import softmax
from tasks.pixels import read
from tasks.runtime import Floats, Run, RuntimeName, available, open_model
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec

ROOT = Path(__file__).parents[2]
# Both of the lock, and a GPU where there is one.
RUNTIMES = tuple(dict.fromkeys([*get_args(RuntimeName)[:2], *available()]))
BATCHES = (1, 2, 7, 64, 1, 7, 0)


@pytest.fixture(scope="module")
def models(
    network: tuple[Classifier, ModelSpec], digit_shards: Shards, tmp_path_factory
) -> dict[str, Path]:
    """The network's fp32 and int8 files."""
    folder = tmp_path_factory.mktemp("models")
    files = {name: folder / f"{name}.onnx" for name in ("fp32", "int8")}
    export(*network, files["fp32"])
    quantize(files["fp32"], files["int8"], digit_shards.split("train").images, 64, 0, "min_max")
    return files


@pytest.fixture(scope="module")
def images(digit_shards: Shards) -> np.ndarray:
    return np.asarray(digit_shards.split("test").images)


def opened(model: Path) -> dict[RuntimeName, Run]:
    return {name: open_model(model, name, 1, ["logits", "embedding"]) for name in RUNTIMES}


def probabilities(run: Run, images: np.ndarray) -> Floats:
    return softmax(run(images)[0])


def test_float_is_the_same_network_everywhere(models, images, network) -> None:
    wanted = softmax(predict(network[0], images, network[1]))
    for name, run in opened(models["fp32"]).items():
        np.testing.assert_allclose(probabilities(run, images), wanted, atol=1e-5, err_msg=name)


def test_int8_is_as_near_to_the_float_network_everywhere(models, images, network) -> None:
    """Not the same: OpenVINO adds to a convolution's sum before it is rounded."""
    wanted = predict(network[0], images, network[1])
    one, *others = (run(images)[0] for run in opened(models["int8"]).values())
    for other in others:
        assert logit_error(other, wanted) < 1.25 * logit_error(one, wanted) < 0.1
        assert logit_error(other, one) < logit_error(one, wanted)
        assert (one.argmax(1) == other.argmax(1)).mean() >= 0.97


@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("name", RUNTIMES)
def test_an_image_is_answered_alike_among_any_number(models, images, kind, name) -> None:
    run = opened(models[kind])[name]
    whole = run(images)
    answers = [run(images[:count]) for count in BATCHES]  # kept: each call's arrays are its own
    for count, found in zip(BATCHES, answers, strict=True):
        for part, wanted in zip(found, whole, strict=True):
            assert part.dtype == np.float32
            np.testing.assert_allclose(part, wanted[:count], atol=1e-5)


@pytest.mark.parametrize("name", RUNTIMES)
def test_threads_get_what_one_by_one_gives(models, images, name) -> None:
    run = opened(models["int8"])[name]
    parts = [images[i : i + 1 + 6 * (i % 2)] for i in range(60)]  # one image and seven in turn
    wanted = [run(part) for part in parts]
    with ThreadPoolExecutor(8) as threads:
        for found, alone in zip(threads.map(run, parts), wanted, strict=True):
            np.testing.assert_array_equal(found[0], alone[0])
            np.testing.assert_array_equal(found[1], alone[1])


def test_files_of_the_smallest_and_the_largest_size(models, digit_shards, network) -> None:
    contract = digit_shards.contract
    side = int(contract.max_pixels**0.5)
    random = np.random.default_rng(0)
    for height, width in ((1, 1), (side, side), (1, contract.max_pixels), (contract.max_pixels, 1)):
        stream = io.BytesIO()
        shown = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(shown).save(stream, "PNG")
        pixels = contract.fit(read(stream.getvalue(), contract.max_pixels))[None]
        wanted = softmax(predict(network[0], pixels, network[1]))
        for name, run in opened(models["fp32"]).items():
            np.testing.assert_allclose(probabilities(run, pixels), wanted, atol=1e-5, err_msg=name)
        for name, run in opened(models["int8"]).items():
            np.testing.assert_allclose(probabilities(run, pixels), wanted, atol=0.1, err_msg=name)


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_is_no_image_of_the_models_is_refused(models, images, name) -> None:
    run = opened(models["fp32"])[name]
    for wrong in (images[:1].astype(np.float32), images[:1, :1, :1], images[:2, :, :4], images[0]):
        with pytest.raises(Exception, match=r"(?i)images|invalid"):
            run(wrong)
    with pytest.raises(ValueError, match="the model has no output probabilities"):
        open_model(models["fp32"], name, 1, ["logits", "probabilities"])


@pytest.mark.parametrize("name", RUNTIMES)
def test_bytes_are_as_good_as_a_file_and_outputs_need_no_names(models, images, name) -> None:
    logits, embedding = open_model(models["fp32"].read_bytes(), name, 1)(images[:3])
    wanted = opened(models["fp32"])[name](images[:3])
    np.testing.assert_array_equal(logits, wanted[0])
    np.testing.assert_array_equal(embedding, wanted[1])


def test_openvino_reports_nothing_to_anybody(models, tmp_path: Path) -> None:
    """Its telemetry would write its identifier to the home directory before it sends anything."""
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom tasks.runtime import open_model\n"
        f"run = open_model(Path({str(models['fp32'])!r}), 'openvino', 1)\n"
        "run(np.zeros((1, 8, 8, 3), np.uint8))\n"
        "print('openvino' in sys.modules, 'openvino_telemetry' in sys.modules)\n"
    )
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True False\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_named_openvino_is_not_the_library(tmp_path: Path) -> None:
    """As `visionloop export --target openvino --output openvino` leaves one."""
    (tmp_path / "openvino").mkdir()
    code = (
        "import sys\n"
        "sys.path[:] = ['', *(p for p in sys.path if p and 'site-packages' not in p)]\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('openvino') is not None\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "sys.path.append(sys.argv[1])\n"
        "from tasks.runtime import missing\n"
        "sys.path.remove(sys.argv[1])\n"
        "print(missing('openvino'))\n"
    )
    packages = str(Path(np.__file__).parents[1])
    command = [sys.executable, "-c", code, packages]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("OpenVINO is not installed; "), done.stderr
    assert available()[:2] == ["onnxruntime", "openvino"]
