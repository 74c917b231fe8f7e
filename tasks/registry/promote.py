"""Promotion and rollback: the aliases champion, previous and challenger, and the release.

Each change is decided under one lock, written down as an intent, then carried out in steps
that can be repeated: aliases, publication, audit trail. A crash between two steps is healed by
whoever changes or promotes next.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.bundle import Bundle
from tasks.errors import RegistryError
from tasks.params import Settings
from tasks.registry.audit import Change, complete, new_change, read_intent, write_intent
from tasks.registry.connection import MODEL_NAME, connect, mlflow_errors
from tasks.registry.decision import Decision, Rule
from tasks.registry.document import keep_decision
from tasks.registry.register import registry_lock
from tasks.registry.versions import (
    CHALLENGER,
    CHAMPION,
    OUTCOME_TAG,
    PREVIOUS,
    REASON_TAG,
    ROLLED_BACK_TAG,
    RULES_TAG,
    WARNINGS_TAG,
    digest_of,
    fetch,
    read_aliases,
    smoke_test,
    tags_of,
)
from tasks.releases import current, publish

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Promotion:
    """What a promotion or rollback came to: the champion now, and what it replaced."""

    champion: int | None
    previous: int | None
    changed: bool
    reason: str
    decision: Decision | None = None
    """As it was carried out: blocked here when the version had been rolled back."""


def promote(version: int, decision: Decision, settings: Settings) -> Promotion:
    """Carry out the gate's decision on a version and publish the champion to the server.

    A blocked version gets the alias "challenger"; the decision and every reason become tags
    of the version, and a signed document in its bundle. Calling again changes nothing. Raises
    RegistryError when the champion is no longer the one decided against, BundleError when the
    version's bundle is altered or does not run.
    """
    client = connect(settings)
    with registry_lock(settings):
        _heal(client, settings)
        champion = _aliases(client, settings).get(CHAMPION)
        if champion == version:
            _republish(version, settings)
            return _outcome(client, settings, False, decision.reason, decision)
        _check(version, champion, decision, client, settings)
        decision = _unless_rolled_back(version, decision, client, settings)
        _tag(version, decision, client, settings)
        keep_decision(version, decision, client, settings)
        if not decision.promote:
            with mlflow_errors(settings):
                client.set_registered_model_alias(MODEL_NAME, CHALLENGER, str(version))
            return _outcome(client, settings, False, decision.reason, decision)
        bundle = _checked_bundle(version, settings)
        _carry_out(
            new_change("promote", version, champion, decision.reason), bundle, client, settings
        )
        return _outcome(client, settings, True, decision.reason, decision)


def rollback(settings: Settings, reason: str = "rolled back by hand") -> Promotion:
    """Put the previous champion back in charge, after its bundle passed a smoke test.

    Raises RegistryError when there is no previous version, BundleError when its bundle is
    altered or does not run; then nothing has changed.
    """
    client = connect(settings)
    with registry_lock(settings):
        healed = _heal(client, settings)
        if healed is not None and healed.action == "rollback":
            return _outcome(client, settings, True, healed.reason)
        aliases = _aliases(client, settings)
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if previous is None or previous == champion:
            raise RegistryError(
                f"there is no previous version to roll back to (champion: {champion or 'none'}); "
                "`visionloop promote VERSION` puts another version in charge"
            )
        bundle = _checked_bundle(previous, settings)
        _carry_out(new_change("rollback", previous, champion, reason), bundle, client, settings)
        return _outcome(client, settings, True, reason)


def _carry_out(change: Change, bundle: Bundle, client: "MlflowClient", settings: Settings) -> None:
    write_intent(change, settings)
    _apply(change, bundle, client, settings)


def _apply(change: Change, bundle: Bundle, client: "MlflowClient", settings: Settings) -> None:
    """The steps of a change; each may be repeated."""
    with mlflow_errors(settings):
        client.set_registered_model_alias(MODEL_NAME, CHAMPION, str(change.version))
        if change.replaced is not None:
            client.set_registered_model_alias(MODEL_NAME, PREVIOUS, str(change.replaced))
        if read_aliases(client).get(CHALLENGER) == change.version:
            client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)
        _mark_rolled_back(change, client)
    publish(bundle, change.version, settings)
    complete(change, settings)


def _mark_rolled_back(change: Change, client: "MlflowClient") -> None:
    if change.action == "rollback" and change.replaced is not None:
        text = f"{change.time} by {change.who}: {change.reason}"
        client.set_model_version_tag(MODEL_NAME, str(change.replaced), ROLLED_BACK_TAG, text)
    if ROLLED_BACK_TAG in client.get_model_version(MODEL_NAME, str(change.version)).tags:
        client.delete_model_version_tag(MODEL_NAME, str(change.version), ROLLED_BACK_TAG)


def _heal(client: "MlflowClient", settings: Settings) -> Change | None:
    """Complete a change that a crash interrupted."""
    change = read_intent(settings)
    if change is not None:
        _apply(change, fetch(change.version, settings), client, settings)
    return change


def _check(
    version: int,
    champion: int | None,
    decision: Decision,
    client: "MlflowClient",
    settings: Settings,
) -> None:
    """The decision must be about this version and the champion of this moment."""
    if digest_of(version, client, settings) != decision.challenger:
        raise RegistryError(f"the decision is about another bundle than version {version} carries")
    digest = None if champion is None else digest_of(champion, client, settings)
    if digest != decision.champion:
        raise RegistryError(
            f"the champion became version {champion} while version {version} was compared with "
            "another; run the gate again"
        )


def _unless_rolled_back(
    version: int, decision: Decision, client: "MlflowClient", settings: Settings
) -> Decision:
    """What a person took out of service only a person puts back, whatever the gate says."""
    when = tags_of(version, client, settings).get(ROLLED_BACK_TAG)
    if when is None or decision.manual:
        return decision
    reason = (
        f"version {version} was rolled back ({when}); `visionloop promote {version}` puts it in "
        "charge again"
    )
    return decision.blocked(Rule("rolled back", None, None, "fail", reason))


def _tag(version: int, decision: Decision, client: "MlflowClient", settings: Settings) -> None:
    tags = {
        OUTCOME_TAG: decision.outcome,
        REASON_TAG: decision.reason,
        RULES_TAG: json.dumps(decision.as_dict()["rules"]),
        WARNINGS_TAG: "; ".join(decision.warnings) or "none",
    }
    with mlflow_errors(settings):
        for name, value in tags.items():
            client.set_model_version_tag(MODEL_NAME, str(version), name, value)


def _checked_bundle(version: int, settings: Settings) -> Bundle:
    bundle = fetch(version, settings)
    smoke_test(bundle)
    return bundle


def _republish(version: int, settings: Settings) -> None:
    """Publish the champion if the server does not follow it (a lost release directory)."""
    release = current(settings)
    if release is None or release.version != version:
        publish(fetch(version, settings), version, settings)


def _aliases(client: "MlflowClient", settings: Settings) -> dict[str, int]:
    with mlflow_errors(settings):
        return read_aliases(client)


def _outcome(
    client: "MlflowClient",
    settings: Settings,
    changed: bool,
    reason: str,
    decision: Decision | None = None,
) -> Promotion:
    aliases = _aliases(client, settings)
    return Promotion(aliases.get(CHAMPION), aliases.get(PREVIOUS), changed, reason, decision)
