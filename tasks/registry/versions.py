"""Reads the registry: versions, who is champion, and the bundles that versions carry."""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError, RegistryError
from tasks.params import Settings
from tasks.registry.connection import MODEL_NAME, connect, mlflow_errors
from tasks.registry.register import BUNDLE_FOLDER, DIGEST_TAG, version_url
from tasks.registry.server import public_address
from tasks.signing import GATE, read_document

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
OUTCOME_TAG, REASON_TAG, RULES_TAG = "gate", "gate_reason", "gate_rules"
WARNINGS_TAG = "gate_warnings"
ROLLED_BACK_TAG = "rolled_back"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """A registered version as the registry shows it."""

    version: int
    aliases: tuple[str, ...]
    digest: str
    run_id: str | None
    technique: str
    accuracy: str
    gate: str | None
    reason: str | None
    created: int
    """Milliseconds since 1970, UTC."""
    url: str


@dataclass(frozen=True)
class Status:
    """The registry at a glance."""

    champion: int | None
    previous: int | None
    challenger: int | None
    versions: tuple[Version, ...]
    url: str


def status(settings: Settings) -> Status:
    """Every version, newest first, and what the aliases point to; raises ServiceError."""
    client = connect(settings)
    with mlflow_errors(settings):
        aliases = read_aliases(client)
        found = client.search_model_versions(f"name = '{MODEL_NAME}'")
    versions = [_version(item, aliases, settings) for item in found]
    versions.sort(key=lambda version: -version.version)
    return Status(
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        challenger=aliases.get(CHALLENGER),
        versions=tuple(versions),
        url=f"{public_address(settings)}/#/models/{MODEL_NAME}",
    )


def champion(settings: Settings) -> Version | None:
    """The version in charge, None before the first promotion; raises ServiceError."""
    found = status(settings)
    return next((v for v in found.versions if v.version == found.champion), None)


def champion_bundle(settings: Settings) -> Bundle | None:
    """The champion's bundle, verified; None before the first promotion."""
    found = champion(settings)
    return None if found is None else fetch(found.version, settings)


def fetch(version: int, settings: Settings) -> Bundle:
    """The bundle a version carries, downloaded once, signature and digest verified.

    Raises RegistryError for a version that does not exist, BundleError for an altered bundle.
    """
    client = connect(settings)
    digest = digest_of(version, client, settings)
    kept = kept_copy(version, digest, settings)
    if kept.exists():
        try:
            return _verified(kept, digest, settings)
        except BundleError as error:  # damaged since: MLflow has another copy
            log.warning("%s is fetched again: %s", kept, error)
            shutil.rmtree(kept)
    with mlflow_errors(settings):
        _download(version, kept, client)
    _without_damaged_decision(kept, digest, settings)
    try:
        return _verified(kept, digest, settings)
    except BundleError as error:
        shutil.rmtree(kept)
        raise BundleError(f"version {version} cannot be used: {error}") from None


def kept_copy(version: int, digest: str, settings: Settings) -> Path:
    """Where the bundle that a version carries is kept once it was fetched."""
    return settings.home / "bundles" / f"v{version}-{digest[:12]}"


def artifacts_of(version: int, client: "MlflowClient") -> Any:
    """MLflow's store of the files that a version carries; its bundle is in BUNDLE_FOLDER."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    location = client.get_model_version_download_uri(MODEL_NAME, str(version))
    if location.startswith("models:/"):
        location = client.get_logged_model(location.rpartition("/")[2]).artifact_location
    # Not mlflow.artifacts: for models it asks the process-wide address, whatever it is told.
    return get_artifact_repository(location, tracking_uri=client.tracking_uri)


def smoke_test(bundle: Bundle) -> None:
    """Run the bundle on images of one value and on noise; raises BundleError if it misbehaves."""
    size, classes = bundle.info.input.size, len(bundle.info.classes)
    noise = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    for images in (np.zeros((1, size, size, 3), np.uint8), noise):
        try:
            probabilities, embedding = bundle.predict(images)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise BundleError(f"the model of {bundle.path} does not run: {error}") from None
        sums = probabilities.sum(axis=1)
        if probabilities.shape != (len(images), classes) or len(embedding) != len(images):
            raise BundleError(f"the model of {bundle.path} answers {probabilities.shape}")
        if not np.isfinite(probabilities).all() or not np.allclose(sums, 1, atol=1e-3):
            raise BundleError(f"the model of {bundle.path} answers no probabilities (sum {sums})")


def read_aliases(client: "MlflowClient") -> dict[str, int]:
    """Alias to version; {} when nothing is registered."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(MODEL_NAME).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: int(version) for alias, version in aliases.items()}


def digest_of(version: int, client: "MlflowClient", settings: Settings) -> str:
    """The digest of the bundle that a version carries; raises RegistryError without one."""
    tags = tags_of(version, client, settings)
    if DIGEST_TAG not in tags:
        raise RegistryError(f"version {version} was not registered by Visionloop: no {DIGEST_TAG}")
    return tags[DIGEST_TAG]


def tags_of(version: int, client: "MlflowClient", settings: Settings) -> dict[str, str]:
    """The tags of a version; raises RegistryError when it does not exist."""
    from mlflow.exceptions import MlflowException

    with mlflow_errors(settings):
        try:
            return dict(client.get_model_version(MODEL_NAME, str(version)).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise RegistryError(
                    f"there is no version {version} of {MODEL_NAME}; `visionloop status` lists them"
                ) from None
            raise


def _verified(path: Path, digest: str, settings: Settings) -> Bundle:
    bundle = open_bundle(path, settings)
    if bundle.digest != digest:
        raise BundleError(f"{path} is bundle {bundle.digest[:12]}, registered was {digest[:12]}")
    return bundle


def _download(version: int, target: Path, client: "MlflowClient") -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    store = artifacts_of(version, client)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as directory:
        Path(store.download_artifacts(BUNDLE_FOLDER, directory)).rename(target)


def _without_damaged_decision(bundle: Path, digest: str, settings: Settings) -> None:
    """Leave out a decision that is not whole: an upload may be killed, the next gate mends it."""
    try:
        if (bundle / GATE).exists():
            read_document(bundle / GATE, digest, settings)
    except BundleError as error:
        log.warning("left out of the bundle: %s", error)
        (bundle / GATE).unlink()


def _version(item: Any, aliases: dict[str, int], settings: Settings) -> Version:
    number, tags = int(item.version), item.tags
    return Version(
        version=number,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        digest=tags.get(DIGEST_TAG, ""),
        run_id=item.run_id or None,
        technique=tags.get("technique", ""),
        accuracy=tags.get("accuracy", ""),
        gate=tags.get(OUTCOME_TAG),
        reason=tags.get(REASON_TAG),
        created=item.creation_timestamp,
        url=version_url(number, settings),
    )
