"""A real MLflow server for the session, emptied for every test; frozen test images."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from frozen_shards import write_frozen
from mlflow import MlflowClient

from tasks.bundle import Bundle
from tasks.params import Settings
from tasks.ports import free_port
from tasks.registry.connection import EXPERIMENT, MODEL_NAME, configure
from tasks.registry.server import mlflow_server_command, wait_until_ready


@contextmanager
def running_server(home: Path, port: int) -> Iterator[str]:
    """The product's own MLflow server over `home`; stopped with everything it started."""
    address = f"http://127.0.0.1:{port}"
    command = mlflow_server_command(Settings(home=home), "127.0.0.1", port)
    with open(home / "server.log", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(address)
        assert process.poll() is None, "another server answers on the port"
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def shared_server(server_home: Path) -> Iterator[str]:
    configure()
    with running_server(server_home, free_port()) as address:
        yield address


@pytest.fixture
def mlflow_server(shared_server: str) -> str:
    """The address of an MLflow server that holds no runs and no models."""
    client = MlflowClient(shared_server)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        client.rename_experiment(experiment.experiment_id, f"{EXPERIMENT}-{uuid4().hex}")
    if client.search_registered_models(f"name = '{MODEL_NAME}'"):
        client.delete_registered_model(MODEL_NAME)
    return shared_server


@pytest.fixture
def settings(tmp_path: Path, mlflow_server: str) -> Settings:
    return Settings(home=tmp_path / "home", MLFLOW_TRACKING_URI=mlflow_server)


@pytest.fixture
def client(mlflow_server: str) -> MlflowClient:
    return MlflowClient(mlflow_server)


@pytest.fixture
def root(
    tmp_path: Path, digit_images: np.ndarray, digit_labels: np.ndarray, digits_bundle: Bundle
) -> Path:
    """A folder whose frozen test images are those that the bundles were not trained on."""
    write_frozen(tmp_path / "root", digits_bundle, digit_images[1200:], digit_labels[1200:])
    return tmp_path / "root"
