"""The signed decision travels with the version, and changes nothing of the bundle it is about."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError
from tasks.params import Settings, load_params
from tasks.registry.connection import MODEL_NAME
from tasks.registry.decision import Decision, Looks, by_hand
from tasks.registry.document import kept_decision
from tasks.registry.gate import decide
from tasks.registry.promote import promote, rollback
from tasks.registry.register import register
from tasks.registry.versions import fetch, kept_copy
from tasks.releases import current
from tasks.signing import GATE

pytestmark = pytest.mark.timeout(280)  # the first test waits for the server
PARAMS = load_params()


def _decide(
    challenger: Bundle, champion: Bundle | None, number: int = 1, **gate: float
) -> Decision:
    looks = Looks("t", 597, number, counted=True)
    changed = PARAMS.gate.model_copy(update=gate)
    return decide(challenger, champion, None, changed, PARAMS.budget, looks)


@pytest.fixture
def two(make_bundle: Callable[..., Bundle], settings: Settings) -> tuple[Bundle, Bundle]:
    """Two registered bundles, of which the first is the champion."""
    bundles = make_bundle(0.1, "first"), make_bundle(0.12, "second")
    for bundle in bundles:
        register(bundle, settings)
    promote(1, _decide(bundles[0], None), settings)
    return bundles


def _elsewhere(settings: Settings, tmp_path: Path) -> Settings:
    """Another machine that trusts this one's key and has fetched nothing yet."""
    public = settings.home / "keys" / "signing.pub.pem"
    return settings.model_copy(update={"home": tmp_path / "elsewhere", "trusted_key": public})


def test_release_and_version_carry_the_decision_and_the_digest_stays(
    two: tuple[Bundle, Bundle], settings: Settings, client: MlflowClient, tmp_path: Path
) -> None:
    promote(2, _decide(two[1], two[0], 7), settings)

    released = open_bundle(current(settings).path, settings)
    fetched = fetch(2, _elsewhere(settings, tmp_path))
    assert released.digest == fetched.digest == two[1].digest
    said = kept_decision(released, settings)
    assert kept_decision(fetched, settings) == said
    assert (said["bundle"], said["champion"]) == (two[1].digest, two[0].digest)
    assert said["outcome"] == "promote"
    assert said["looks"] == {"test_set": "t", "images": 597, "number": 7, "counted": True}
    assert said["params"]["gate"] == PARAMS.gate.model_dump()
    rules = {rule["name"]: rule for rule in said["rules"]}
    assert {"accuracy", "recall", "calibration", "latency", "looks"} <= set(rules)
    assert rules["accuracy"]["limit"] == -PARAMS.gate.margin
    assert rules["robustness"]["effect"] == "warn"  # these bundles have no such figure
    assert "@" in said["who"]
    tags = client.get_model_version(MODEL_NAME, "2").tags
    assert tags["gate"] == "promote"
    assert "mean corruption error" in tags["gate_warnings"]
    assert client.get_model_version(MODEL_NAME, "1").tags["gate_warnings"] == "none"
    assert not (two[1].path / GATE).exists()  # data/bundle is DVC's


def test_a_blocked_version_carries_it_too_and_a_later_decision_takes_its_place(
    two: tuple[Bundle, Bundle], settings: Settings, tmp_path: Path
) -> None:
    promote(2, _decide(two[1], two[0], min_recall=1.0), settings)
    assert current(settings).version == 1
    elsewhere = _elsewhere(settings, tmp_path)
    assert kept_decision(fetch(2, elsewhere), elsewhere)["outcome"] == "block"

    promote(2, by_hand(two[1], two[0], "ada", "checked"), settings)
    said = kept_decision(open_bundle(current(settings).path, settings), settings)
    assert (said["outcome"], said["rules"][0]["reason"]) == ("promote", "ada decided: checked")


def test_a_bundle_that_returns_brings_its_newest_decision(
    two: tuple[Bundle, Bundle], settings: Settings
) -> None:
    promote(2, _decide(two[1], two[0]), settings)
    rollback(settings)
    promote(2, by_hand(two[1], two[0], "ada", "mended"), settings)
    said = kept_decision(open_bundle(current(settings).path, settings), settings)
    assert said["rules"][0]["reason"] == "ada decided: mended"


def test_an_altered_decision_is_named_wherever_the_bundle_is_opened(
    two: tuple[Bundle, Bundle], settings: Settings
) -> None:
    path = current(settings).path / GATE
    document = json.loads(path.read_text())
    document["content"]["rules"][0]["reason"] = "all is well"
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"gate\.json was altered"):
        open_bundle(current(settings).path, settings)


def test_a_decision_that_arrived_in_part_does_not_hold_up_the_version(
    two: tuple[Bundle, Bundle],
    settings: Settings,
    server_home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = kept_copy(1, two[0].digest, settings) / GATE
    stored = [p for p in server_home.rglob(GATE) if p.read_bytes() == kept.read_bytes()]
    assert len(stored) == 1
    stored[0].write_bytes(kept.read_bytes()[:100])
    elsewhere = _elsewhere(settings, tmp_path)
    fetched = fetch(1, elsewhere)
    assert kept_decision(fetched, elsewhere) is None
    assert "gate.json is damaged" in caplog.text


def test_a_machine_that_nobody_trusts_promotes_and_says_that_it_cannot_sign(
    two: tuple[Bundle, Bundle],
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere = _elsewhere(settings, tmp_path)
    promote(2, _decide(two[1], two[0]), elsewhere)
    assert current(elsewhere).version == 2
    assert "VISIONLOOP_SIGNING_KEY" in caplog.text
    assert not (current(elsewhere).path / GATE).exists()
