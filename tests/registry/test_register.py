"""A registered version carries the whole bundle, once, and anyone can load it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from tasks.bundle import FILES, Bundle
from tasks.errors import BundleError, RegistryError, ServiceError
from tasks.params import Settings
from tasks.ports import free_port
from tasks.registry.connection import MODEL_NAME
from tasks.registry.register import register
from tasks.registry.versions import champion, fetch, status
from tasks.tracking import open_run

pytestmark = pytest.mark.timeout(280)  # the first test waits for the server

LOAD = """
import json, sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/visionloop@champion")
table = model.predict(np.load(sys.argv[1]))
print(json.dumps([table["label"].tolist(), [list(p.values()) for p in table["probabilities"]]]))
"""


def test_a_version_hangs_on_its_training_run_and_says_what_it_is(
    digits_bundle: Bundle, settings: Settings, client: MlflowClient
) -> None:
    run = open_run("train-0", "train", settings=settings)
    run.metrics({"loss": 0.1}, step=0)
    run.finish()

    registered = register(digits_bundle, settings)

    version = client.get_model_version(MODEL_NAME, str(registered.version))
    assert (registered.version, registered.created) == (1, True)
    assert client.get_run(registered.run_id).data.metrics == {"loss": 0.1}
    assert client.get_run(registered.run_id).info.status == "FINISHED"
    assert version.run_id == registered.run_id
    assert version.tags["bundle_digest"] == digits_bundle.digest
    assert version.tags["technique"] == "fp32"
    assert client.get_run(registered.run_id).data.tags["params_hash"] == "0" * 64
    assert registered.url == f"{settings.tracking_uri}/#/models/visionloop/versions/1"


def test_the_same_bundle_is_registered_once_and_another_one_anew(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    first, second = make_bundle(0.1, "a"), make_bundle(0.2, "b")
    assert register(first, settings).created
    again = register(first, settings)
    assert (again.version, again.created) == (1, False)
    assert register(second, settings).version == 2


def test_a_bundle_whose_run_is_unknown_is_registered_without_one(
    digits_bundle: Bundle, settings: Settings
) -> None:
    assert register(digits_bundle, settings).run_id is None


def test_a_fresh_process_loads_the_champion_and_predicts_what_the_bundle_does(
    digits_bundle: Bundle,
    settings: Settings,
    client: MlflowClient,
    digit_images: np.ndarray,
    tmp_path: Path,
) -> None:
    version = register(digits_bundle, settings).version
    client.set_registered_model_alias(MODEL_NAME, "champion", str(version))
    np.save(tmp_path / "images.npy", digit_images[1200:1216])
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "images.npy")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    labels, probabilities = json.loads(done.stdout)
    expected, _ = digits_bundle.predict(digit_images[1200:1216])
    assert labels == [str(digit) for digit in expected.argmax(axis=1)]
    assert np.allclose(probabilities, expected, atol=1e-6)
    assert "Traceback" not in done.stderr


def test_fetching_gives_the_whole_bundle_back_verified(
    digits_bundle: Bundle, settings: Settings
) -> None:
    version = register(digits_bundle, settings).version
    fetched = fetch(version, settings)
    assert fetched.digest == digits_bundle.digest
    for name in FILES:
        assert (fetched.path / name).read_bytes() == (digits_bundle.path / name).read_bytes()


def test_a_damaged_copy_is_fetched_again_and_a_damaged_original_refused(
    digits_bundle: Bundle, settings: Settings, server_home: Path
) -> None:
    version = register(digits_bundle, settings).version
    copy = fetch(version, settings).path
    (copy / "model.onnx").write_bytes(b"other")
    assert fetch(version, settings).digest == digits_bundle.digest

    (stored,) = server_home.glob(f"mlflow/artifacts/*/models/{_model_id(settings)}/**/model.onnx")
    stored.write_bytes(b"other")
    (copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"version 1 cannot be used.*model.onnx"):
        fetch(version, settings)


def _model_id(settings: Settings) -> str:
    version = MlflowClient(settings.tracking_uri).get_model_version(MODEL_NAME, "1")
    return str(version.source).rpartition("/")[2]


def test_status_before_anything_is_registered_is_empty(settings: Settings) -> None:
    found = status(settings)
    assert (found.champion, found.versions) == (None, ())
    assert champion(settings) is None
    with pytest.raises(RegistryError, match="no version 7"):
        fetch(7, settings)


def test_registering_without_mlflow_says_how_to_go_on(
    digits_bundle: Bundle, settings: Settings
) -> None:
    gone = settings.model_copy(update={"tracking_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(ServiceError, match="make up"):
        register(digits_bundle, gone)
