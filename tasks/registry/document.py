"""The gate's decision as a signed document, gate.json, in the bundle of the version it is about.

The bundle was signed before, and its digest is its identity; so the document is no part of what
is signed there but signed by itself, and names the bundle. It lies in MLflow with the version, in
the copy fetched from there, and in the release; data/bundle, which is DVC's, stays as it is.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tasks.bundle import Bundle
from tasks.errors import BundleError
from tasks.files import write_json
from tasks.params import Settings
from tasks.registry.audit import who
from tasks.registry.connection import mlflow_errors
from tasks.registry.decision import Decision
from tasks.registry.register import BUNDLE_FOLDER
from tasks.registry.versions import artifacts_of, kept_copy
from tasks.signing import GATE, read_document, signed_document

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
_FORMAT = 1


def keep_decision(
    version: int, decision: Decision, client: "MlflowClient", settings: Settings
) -> None:
    """Put the signed decision into the version's bundle, in the place of an earlier one.

    Repeating it is harmless. A machine whose key is not the trusted one only warns: the decision
    holds, nobody else could check it.
    """
    try:
        document = signed_document(_content(decision), settings)
    except BundleError as error:
        log.warning("the decision on version %d is not kept as %s: %s", version, GATE, error)
        return
    with TemporaryDirectory() as scratch, mlflow_errors(settings):
        path = Path(scratch) / GATE
        write_json(path, document)
        artifacts_of(version, client).log_artifact(str(path), BUNDLE_FOLDER)
    kept = kept_copy(version, decision.challenger, settings)
    if kept.is_dir():
        write_json(kept / GATE, document)


def kept_decision(bundle: Bundle, settings: Settings) -> dict[str, Any] | None:
    """The decision that lies in the bundle, verified; None without one. Raises BundleError."""
    path = bundle.path / GATE
    return read_document(path, bundle.digest, settings) if path.exists() else None


def _content(decision: Decision) -> dict[str, Any]:
    values = decision.as_dict()
    return {
        "format": _FORMAT,
        "bundle": values.pop("challenger"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": who(),
        **values,
    }
