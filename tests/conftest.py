"""Fixtures that several parts share: a state directory, a real bundle, real images."""

import copy
import hashlib
import io
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import onnx
import pytest
import sqlalchemy as sa
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tasks.bundle import (
    CARD,
    METRICS,
    MODEL,
    REFERENCE,
    REPORT,
    Bundle,
    BundleInfo,
    InputContract,
    Lineage,
    Measurements,
    Runtime,
    open_bundle,
    write_bundle,
)
from tasks.decision import Decision
from tasks.params import PARAMS_FILE, Settings, read_yaml
from tasks.pixels import STATISTICS, fit, statistics
from tasks.ports import free_port
from tasks.runtime import PROVIDERS, RuntimeName

SIZE = 8
HELD_OUT = 1200  # images from here on were not trained on
# What is made once and takes long: the tests that use it run in one process of `make test`,
# the clone's first, since they take longest.
SHARED = ("clone", "shared_server", "trained", "built", "shards", "finished")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = getattr(item, "fixturenames", ())
        group = next((name for name in SHARED if name in used), item.path.name)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: "clone" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="session")
def digit_images() -> np.ndarray:
    """scikit-learn's 1,797 scans as uint8 N×8×8×3."""
    from sklearn.datasets import load_digits  # a second: only where digits are used

    grey = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


@pytest.fixture(scope="session")
def digit_labels() -> np.ndarray:
    from sklearn.datasets import load_digits

    return load_digits().target


@pytest.fixture
def png() -> Callable[[np.ndarray], bytes]:
    """An image array as the bytes of a PNG file."""

    def encode(image: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return stream.getvalue()

    return encode


@pytest.fixture
def make_bundle(
    settings: Settings, digit_images: np.ndarray, digit_labels: np.ndarray, tmp_path: Path
) -> Callable[..., Bundle]:
    """Writes a signed bundle of a logistic regression on digits; `regularisation` varies it.

    `more` are figures of its metrics.json. With `strange_from` it has a score, and images from
    there are strange.
    """

    def make(
        regularisation: float = 0.1,
        name: str = "bundle",
        runtime: RuntimeName = "onnxruntime",
        more: dict | None = None,
        strange_from: float | None = None,
    ) -> Bundle:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=regularisation, max_iter=300)
        model.fit(_flat(digit_images[:HELD_OUT]), digit_labels[:HELD_OUT])
        accuracy = model.score(_flat(digit_images[HELD_OUT:]), digit_labels[HELD_OUT:])
        path = tmp_path / name

        def fill(directory: Path) -> None:
            graph = _graph(model.coef_, model.intercept_)
            if strange_from is not None:
                _add_score(graph)
            onnx.save(graph, directory / MODEL)
            np.savez(
                directory / REFERENCE,
                probabilities=model.predict_proba(_flat(digit_images[HELD_OUT:])).astype("f4"),
                embedding=_flat(digit_images[HELD_OUT:]).astype("f4"),
                statistics=np.stack([statistics(image) for image in digit_images[HELD_OUT:]]),
                labels=digit_labels[HELD_OUT:],
                hashes=pixel_hashes(digit_images[HELD_OUT:]),
                statistic_names=np.array(STATISTICS),
            )
            (directory / REPORT).write_text("<!doctype html><title>Report</title>")
            (directory / CARD).write_text("# Digits by logistic regression\n")
            figures = {
                "test_images": len(digit_images) - HELD_OUT,
                "deployed": {"accuracy": {"value": float(accuracy)}, "calibration_error": 0.02},
                "memory_bytes": 60_000_000,
            }
            (directory / METRICS).write_text(json.dumps(figures | (more or {})))

        info = _info(float(accuracy), runtime)
        if strange_from is not None:
            decision = replace(info.decision, strange_from=strange_from)
            info = info.model_copy(update={"decision": decision, "ood_score": "energy"})
        write_bundle(path, info, settings, fill)
        return open_bundle(path, settings)

    return make


@pytest.fixture
def digits_bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A real bundle, about 0.93 accurate: classes "0".."9", 8×8 pixels."""
    return make_bundle()


@pytest.fixture
def values() -> dict:
    """Plain values of conf/params.yaml, to be changed."""
    return copy.deepcopy(read_yaml(Path(__file__).parents[1] / PARAMS_FILE))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a private PostgreSQL server, from the system's own binaries."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not binaries:
        # On a laptop without it, the prediction log is tested on SQLite and sweeps on their
        # journal, which are what it runs on there; .ci/run installs it, and a lack fails.
        missing = (
            "PostgreSQL, which is optional, has no server binaries here; to test the prediction "
            "log and shared sweeps on it too: apt-get install postgresql"
        )
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    # PostgreSQL refuses to run as root.
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="visionloop-postgres-"))
    if user:
        shutil.chown(folder, user)
    port = free_port()

    def control(*command: str) -> None:
        path = str(binaries[-1].with_name(command[0]))
        arguments = [path, "-D", str(folder / "data"), *command[1:]]
        done = subprocess.run(arguments, user=user, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    control("initdb", "--auth=trust", "--username=visionloop", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        control("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
        yield f"postgresql://visionloop@127.0.0.1:{port}"
    finally:
        control("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The address of an empty database of its own."""
    name = f"test_{uuid4().hex[:12]}"
    engine = sa.create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgres_server}/{name}"


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """What names each image, as in the shards: S32 [N]."""
    return np.array(
        [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images], "S32"
    )


def _flat(images: np.ndarray) -> np.ndarray:
    pixels = np.stack([fit(image, SIZE, "stretch") for image in images])
    return pixels[..., 0].reshape(len(images), -1) / 255


def _graph(weights: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """uint8 N×S×S×3 -> probabilities; the first channel's pixels are the embedding."""
    constants = {
        "axis": np.array([3], np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "shape": np.array([0, SIZE * SIZE], np.int64),
        "scale": np.array(255, np.float32),
        "weights": weights.T.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["images", "first", "second", "axis"], ["grey"]),
        helper.make_node("Cast", ["grey"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["flat"]),
        helper.make_node("Div", ["flat", "scale"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "digits",
        [tensor("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [
            tensor("probabilities", TensorProto.FLOAT, ["N", len(bias)]),
            tensor("embedding", TensorProto.FLOAT, ["N", SIZE * SIZE]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _add_score(model: onnx.ModelProto) -> None:
    """Output "ood_score": the energy of the logits."""
    axis = numpy_helper.from_array(np.array([1], np.int64), "of_classes")
    model.graph.initializer.append(axis)
    model.graph.node.extend(
        [
            helper.make_node("ReduceLogSumExp", ["logits", "of_classes"], ["sum"], keepdims=0),
            helper.make_node("Neg", ["sum"], ["ood_score"]),
        ]
    )
    score = helper.make_tensor_value_info("ood_score", TensorProto.FLOAT, ["N"])
    model.graph.output.append(score)


def _info(accuracy: float, runtime: RuntimeName) -> BundleInfo:
    return BundleInfo(
        schema_version=1,
        architecture="logistic_regression",
        technique="fp32",
        classes=[str(digit) for digit in range(10)],
        input=InputContract(size=SIZE, resize="stretch", max_pixels=50_000_000),
        runtime=Runtime(name=runtime, provider=PROVIDERS[runtime], intra_op_threads=1),
        temperature=1.0,
        decision=Decision(abstain_below=0.9, set_from=0.02, set_coverage=0.95),
        measurements=Measurements(
            accuracy=accuracy,
            accuracy_low=accuracy - 0.02,
            accuracy_high=accuracy + 0.02,
            fp32_accuracy=accuracy,
            fp32_accuracy_low=accuracy - 0.02,
            fp32_accuracy_high=accuracy + 0.02,
            agreement_with_fp32=1.0,
            latency_ms=0.1,
            eager_fp32_latency_ms=0.1,
            size_bytes=3000,
        ),
        lineage=Lineage(git_commit=None, dvc_lock=None, params_hash="0" * 64, run_key="train-0"),
    )
