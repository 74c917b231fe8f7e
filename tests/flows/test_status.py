"""`visionloop status`: right with nothing running, and after a promotion, a run, a check."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tasks.params import load_settings
from tasks.predictions import open_log
from tasks.releases import publish
from tasks.tracking import open_run, outbox


@pytest.fixture
def status(repository, visionloop):
    def run():
        result = visionloop("status", "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    return run


@pytest.fixture
def settings(repository):
    """Those of the repository, so that the bundles are signed with its key."""
    return load_settings()


def test_with_nothing_there(status, repository, visionloop):
    found = status()
    assert found["champion"] is found["last_run"] is found["last_drift_check"] is None
    assert [address["answers"] for address in found["addresses"].values()] == [False] * 3
    assert "`visionloop run` makes and promotes one" in visionloop("status").output
    assert not (repository / ".visionloop").exists(), "looking must not write"


def test_the_champion_is_what_is_served_here(status, settings, digits_bundle, visionloop):
    publish(digits_bundle, 4, settings)
    champion = status()["champion"]
    assert champion["version"] == 4
    assert champion["classes"] == 10
    assert champion["accuracy"] == digits_bundle.info.measurements.accuracy
    assert champion["runtime"] == "onnxruntime"
    output = " ".join(visionloop("status").output.split())
    assert "version 4 (fp32, 10 classes)" in output
    assert "ms on ONNX Runtime" in output


def test_the_last_run_and_how_it_ended(status, settings):
    open_run("train-0123456789ab", "first", settings=settings).finish()
    run = open_run("train-ba9876543210", "second", settings=settings)
    open_run("tune-000000000000-trial-3", "trial", settings=settings)
    assert status()["last_run"]["name"] == "second"
    assert status()["last_run"]["ended"] is None
    sent = outbox(settings) / "train-0123456789ab/sent.json"  # as the forwarder notes it
    sent.write_text("{}")
    assert status()["last_run"]["name"] == "second"
    run.finish("FAILED")
    assert status()["last_run"]["status"] == "FAILED"


def test_the_last_drift_check(status, settings, visionloop):
    log = open_log(settings.predictions_url)
    now = datetime.now(UTC)
    for outcome in ("no_drift", "drift"):
        check = log.record_check(
            time=now,
            since=now - timedelta(hours=1),
            until=now,
            model_version=2,
            bundle_digest="0" * 64,
            outcome=outcome,
            result={},
        )
    log.record_trigger(check, "run-1")
    log.close()
    assert status()["last_drift_check"] == {
        "time": now.isoformat(timespec="seconds"),
        "outcome": "drift",
        "model_version": 2,
        "started_run": "run-1",
    }
    assert "started run run-1" in visionloop("status").output
