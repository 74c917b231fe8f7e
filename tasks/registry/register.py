"""Registers a release bundle as a version of the MLflow model "visionloop".

The version carries the whole bundle and is loadable with `mlflow.pyfunc`; the same bundle is
registered once, found again by its digest.
"""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks import decision
from tasks.bundle import Bundle
from tasks.locks import held
from tasks.params import Settings
from tasks.registry.connection import MODEL_NAME, connect, mlflow_errors
from tasks.registry.forward import find_experiment
from tasks.registry.server import public_address
from tasks.registry.sync import run_id_of, sync_all
from tasks.runtime import version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model, ModelSignature

DIGEST_TAG = "bundle_digest"
BUNDLE_FOLDER = "artifacts/bundle"  # where MLflow puts it inside the logged model
LOCK_SECONDS = 120.0
_REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registered:
    """A registered version; `created` is false when this bundle had one already."""

    version: int
    created: bool
    run_id: str | None
    url: str


def register(bundle: Bundle, settings: Settings) -> Registered:
    """Forward the recorded runs, then give the bundle a version of its own, once.

    Raises ServiceError when MLflow is not there; calling again then finishes the work.
    """
    sync_all(settings)
    client = connect(settings)
    with registry_lock(settings), mlflow_errors(settings):
        run_id = run_id_of(bundle.info.lineage.run_key, settings)
        found = find_version(bundle.digest, client)
        version = found or _create(bundle, run_id, client)
    return Registered(version, found is None, run_id, version_url(version, settings))


def find_version(digest: str, client: "MlflowClient") -> int | None:
    """The version that carries the bundle of this digest."""
    filters = f"name = '{MODEL_NAME}' and tags.{DIGEST_TAG} = '{digest}'"
    versions = client.search_model_versions(filters)
    return min((int(version.version) for version in versions), default=None)


def version_url(version: int, settings: Settings) -> str:
    """The MLflow page of a version."""
    return f"{public_address(settings)}/#/models/{MODEL_NAME}/versions/{version}"


def run_page(key: str, settings: Settings) -> str | None:
    """The MLflow page of a recorded run; None when MLflow does not have it."""
    run_id = run_id_of(key, settings)
    if run_id is None:
        return None
    experiment = connect(settings).get_run(run_id).info.experiment_id
    return f"{public_address(settings)}/#/experiments/{experiment}/runs/{run_id}"


def registry_lock(settings: Settings) -> Any:
    """The lock around every change of versions and aliases; a context manager."""
    what = "another process is changing the registry"
    return held(settings.home / "registry.lock", LOCK_SECONDS, what)


def _create(bundle: Bundle, run_id: str | None, client: "MlflowClient") -> int:
    tags = _tags(bundle)
    if run_id is None:
        log.warning(
            "run %s is known neither here nor to MLflow (a bundle from elsewhere?); "
            "the version is registered without a run",
            bundle.info.lineage.run_key,
        )
    else:
        _tag_run(run_id, tags, client)
    _create_model(client)
    model_id = _log_model(bundle, run_id, tags, client)
    version = client.create_model_version(
        MODEL_NAME,
        f"models:/{model_id}",
        run_id,
        tags,
        model_id=model_id,
        await_creation_for=0,
    )
    log.info("registered bundle %s as version %s", bundle.digest[:12], version.version)
    return int(version.version)


def _log_model(
    bundle: Bundle, run_id: str | None, tags: dict[str, str], client: "MlflowClient"
) -> str:
    """Upload the bundle as an MLflow logged model of the run; gives the model's id.

    The steps of `mlflow.pyfunc.log_model`, which would reopen the run to hang the model on it.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment_id = find_experiment(client).experiment_id
    model = client.create_logged_model(experiment_id, MODEL_NAME, run_id, tags)
    with tempfile.TemporaryDirectory() as directory:
        about = Model(model_uuid=model.model_id, run_id=run_id, model_id=model.model_id)
        save_pyfunc(bundle, Path(directory, "model"), about)
        client.log_model_artifacts(model.model_id, f"{directory}/model")
    client.finalize_logged_model(model.model_id, "READY")
    if run_id is not None:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def save_pyfunc(bundle: Bundle, folder: Path, about: "Model | None" = None) -> None:
    """Write the bundle as a model that `mlflow.pyfunc.load_model` opens, into a new folder."""
    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as directory:
        # MLflow names the folder after its source, so the source gets the name it is fetched by.
        source = shutil.copytree(bundle.path, f"{directory}/bundle")
        save_model(
            path=str(folder),
            mlflow_model=about,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"bundle": source, "decision": decision.__file__},
            signature=_signature(bundle),
            input_example=_example(bundle),
            pip_requirements=[f"{name}=={version_of(name)}" for name in _REQUIREMENTS],
        )


def _signature(bundle: Bundle) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Map, Schema, TensorSpec

    size = bundle.info.input.size
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
        ColSpec(DataType.boolean, "abstain"),
        ColSpec(Array(DataType.string), "prediction_set"),
        ColSpec(DataType.double, "ood_score", required=False),
        ColSpec(DataType.boolean, "strange"),
    ]
    images = TensorSpec(np.dtype(np.uint8), (-1, size, size, 3))
    return ModelSignature(Schema([images]), Schema(outputs))


def _example(bundle: Bundle) -> npt.NDArray[np.uint8]:
    """A mid-grey image; shown in the UI, and MLflow checks that it can be served."""
    size = bundle.info.input.size
    return np.full((1, size, size, 3), 127, np.uint8)


def _create_model(client: "MlflowClient") -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tag_run(run_id: str, tags: dict[str, str], client: "MlflowClient") -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _tags(bundle: Bundle) -> dict[str, str]:
    lineage = bundle.info.lineage
    return {
        DIGEST_TAG: bundle.digest,
        "git_commit": lineage.git_commit or "unknown",
        "dvc_lock": lineage.dvc_lock or "unknown",
        "params_hash": lineage.params_hash,
        "run_key": lineage.run_key,
        "architecture": bundle.info.architecture,
        "technique": bundle.info.technique,
        "accuracy": f"{bundle.info.measurements.accuracy:.4f}",
    }
