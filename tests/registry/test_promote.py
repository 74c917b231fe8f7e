"""Aliases, release and trail agree after promotions, rollbacks, races and crashes."""

import json
import multiprocessing
import shutil
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from tasks.bundle import Bundle
from tasks.errors import BundleError, RegistryError
from tasks.params import Settings
from tasks.registry.audit import history
from tasks.registry.connection import MODEL_NAME
from tasks.registry.decision import Decision, Rule, by_hand
from tasks.registry.promote import promote, rollback
from tasks.registry.register import register
from tasks.registry.versions import status
from tasks.releases import current

pytestmark = pytest.mark.timeout(280)  # the first test waits for the server


@pytest.fixture
def two(make_bundle: Callable[..., Bundle], settings: Settings) -> tuple[Bundle, Bundle]:
    """Two registered bundles: versions 1 and 2."""
    bundles = make_bundle(0.1, "first"), make_bundle(0.2, "second")
    assert [register(bundle, settings).version for bundle in bundles] == [1, 2]
    return bundles


def _accepted(challenger: Bundle, champion: Bundle | None) -> Decision:
    rule = Rule("accuracy", 0.0, -0.01, "pass", "accuracy holds")
    return Decision("promote", (rule,), challenger.digest, champion.digest if champion else None)


def _blocked(challenger: Bundle, champion: Bundle) -> Decision:
    rule = Rule("accuracy", -0.2, -0.01, "fail", "accuracy fell by 0.2")
    return Decision("block", (rule,), challenger.digest, champion.digest)


def _aliases(client: MlflowClient) -> dict[str, int]:
    aliases = client.get_registered_model(MODEL_NAME).aliases
    return {alias: int(version) for alias, version in aliases.items()}


def _tags(client: MlflowClient, version: int) -> dict[str, str]:
    return client.get_model_version(MODEL_NAME, str(version)).tags


def _served(settings: Settings) -> int | None:
    release = current(settings)
    return release.version if release else None


def test_promotion_moves_the_aliases_publishes_and_is_recorded(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient
) -> None:
    promote(1, _accepted(two[0], None), settings)
    assert (_aliases(client), _served(settings)) == ({"champion": 1}, 1)

    done = promote(2, _accepted(two[1], two[0]), settings)

    assert (done.champion, done.previous, done.changed) == (2, 1, True)
    assert (_aliases(client), _served(settings)) == ({"champion": 2, "previous": 1}, 2)
    assert json.loads(_tags(client, 2)["gate_rules"])[0]["reason"] == "accuracy holds"
    trail = [(e.action, e.version, e.replaced, e.reason) for e in history(settings)]
    assert trail == [
        ("promote", 1, None, "accuracy holds"),
        ("promote", 2, 1, "accuracy holds"),
    ]
    assert all("@" in entry.who for entry in history(settings))


def test_promoting_the_champion_again_changes_nothing(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient
) -> None:
    promote(1, _accepted(two[0], None), settings)
    again = promote(1, _accepted(two[0], None), settings)
    assert not again.changed
    assert _aliases(client) == {"champion": 1}
    assert len(history(settings)) == 1


def test_a_blocked_version_becomes_the_challenger_and_is_told_why(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient
) -> None:
    promote(1, _accepted(two[0], None), settings)
    done = promote(2, _blocked(two[1], two[0]), settings)
    assert (done.changed, done.champion) == (False, 1)
    assert (_aliases(client), _served(settings)) == ({"champion": 1, "challenger": 2}, 1)
    assert _tags(client, 2)["gate"] == "block"
    assert _tags(client, 2)["gate_reason"] == "accuracy fell by 0.2"

    promote(2, by_hand(two[1], two[0], "ada", "checked"), settings)
    assert _aliases(client) == {"champion": 2, "previous": 1}


def test_rollback_swaps_and_the_gate_does_not_bring_back_what_was_rolled_back(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient
) -> None:
    promote(1, _accepted(two[0], None), settings)
    promote(2, _accepted(two[1], two[0]), settings)

    done = rollback(settings, "wrong on sevens")

    assert (done.champion, done.previous) == (1, 2)
    assert (_aliases(client), _served(settings)) == ({"champion": 1, "previous": 2}, 1)
    assert "wrong on sevens" in _tags(client, 2)["rolled_back"]

    refused = promote(2, _accepted(two[1], two[0]), settings)
    assert (refused.changed, _served(settings)) == (False, 1)
    assert refused.decision is not None
    assert "was rolled back" in refused.decision.reason

    promote(2, by_hand(two[1], two[0], "ada", "mended the camera"), settings)
    assert _served(settings) == 2
    assert "rolled_back" not in _tags(client, 2)
    assert [entry.action for entry in history(settings)] == [
        *("promote", "promote", "rollback", "promote")
    ]


def test_rollback_without_a_previous_version_is_refused(
    two: tuple[Bundle, Bundle], settings: Settings
) -> None:
    with pytest.raises(RegistryError, match="champion: none"):
        rollback(settings)
    promote(1, _accepted(two[0], None), settings)
    with pytest.raises(RegistryError, match="no previous version"):
        rollback(settings)
    assert _served(settings) == 1


def test_a_decision_against_a_champion_of_yesterday_is_refused(
    two: tuple[Bundle, Bundle], make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    third = make_bundle(0.3, "third")
    register(third, settings)
    promote(1, _accepted(two[0], None), settings)
    late = _accepted(third, two[0])
    promote(2, _accepted(two[1], two[0]), settings)
    with pytest.raises(RegistryError, match="the champion became version 2"):
        promote(3, late, settings)
    with pytest.raises(RegistryError, match="about another bundle"):
        promote(3, _accepted(two[0], two[1]), settings)
    assert _served(settings) == 2


def _promote_first(version: int, decision: Decision, settings: Settings, results) -> None:
    try:
        results.put((version, promote(version, decision, settings).changed))
    except RegistryError as error:
        results.put((version, str(error)))


def test_of_two_processes_that_promote_at_once_one_wins(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient
) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    racers = [
        context.Process(
            target=_promote_first, args=(n + 1, _accepted(two[n], None), settings, results)
        )
        for n in range(2)
    ]
    for racer in racers:
        racer.start()
    outcomes = dict(results.get(timeout=120) for _ in racers)
    for racer in racers:
        racer.join()

    (winner,) = [version for version, outcome in outcomes.items() if outcome is True]
    assert f"the champion became version {winner}" in outcomes[3 - winner]
    assert (_aliases(client), _served(settings)) == ({"champion": winner}, winner)


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_crash_between_alias_and_publication_is_healed_by_the_next_call(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient, action: str
) -> None:
    promote(1, _accepted(two[0], None), settings)
    if action == "rollback":
        promote(2, _accepted(two[1], two[0]), settings)
    before, expected = _served(settings), (2 if action == "promote" else 1)
    kept = settings.releases.rename(settings.home / "kept")
    settings.releases.write_text("a file where the directory should be")

    def act() -> None:
        if action == "promote":
            promote(2, _accepted(two[1], two[0]), settings)
        else:
            rollback(settings)

    with pytest.raises(OSError, match="releases"):
        act()
    assert _aliases(client)["champion"] == expected  # the alias moved, the release did not
    settings.releases.unlink()
    kept.rename(settings.releases)
    assert _served(settings) == before

    act()

    assert _served(settings) == expected
    assert _aliases(client) == {"champion": expected, "previous": 3 - expected}
    assert [entry.version for entry in history(settings)][-1] == expected
    assert len(history(settings)) == (2 if action == "promote" else 3)


def test_a_lost_release_directory_is_published_anew(
    two: tuple[Bundle, Bundle], settings: Settings
) -> None:
    promote(1, _accepted(two[0], None), settings)
    shutil.rmtree(settings.releases)
    promote(1, Decision("unchanged", (), two[0].digest, two[0].digest), settings)
    assert _served(settings) == 1


def test_a_bundle_signed_by_someone_else_is_not_promoted(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient
) -> None:
    promote(1, _accepted(two[0], None), settings)
    stranger = settings.home / "stranger"
    other_key = settings.model_copy(update={"signing_key": _key(stranger)})
    with pytest.raises(BundleError, match="signature"):
        promote(2, _accepted(two[1], two[0]), other_key)
    assert (_aliases(client)["champion"], _served(settings)) == (1, 1)


def _key(home):
    from tasks.signing import sign_directory

    folder = home / "folder"
    folder.mkdir(parents=True)
    (folder / "a").write_text("a")
    sign_directory(folder, Settings(home=home))
    return home / "keys" / "signing.pem"


def test_status_shows_versions_aliases_and_reasons(
    two: tuple[Bundle, Bundle], settings: Settings
) -> None:
    promote(1, _accepted(two[0], None), settings)
    promote(2, _blocked(two[1], two[0]), settings)
    found = status(settings)
    assert (found.champion, found.previous, found.challenger) == (1, None, 2)
    newest, oldest = found.versions
    assert (newest.version, newest.aliases, newest.gate) == (2, ("challenger",), "block")
    assert newest.reason == "accuracy fell by 0.2"
    assert (oldest.aliases, oldest.digest) == (("champion",), two[0].digest)
