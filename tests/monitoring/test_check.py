"""The whole check: release and prediction log in; record, report and decision out."""

import json
import re
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pydantic import SecretStr

from tasks import releases
from tasks.bundle import Bundle
from tasks.errors import BundleError, ServiceError
from tasks.monitoring.check import run_check, should_retrain
from tasks.params import Settings, load_params
from tasks.pixels import statistics
from tasks.predictions import Prediction, open_log
from tasks.schema import Params

NOW = datetime(2026, 6, 1, 2, tzinfo=UTC)


@pytest.fixture
def params() -> Params:
    return load_params(
        overrides={
            "drift.window_hours": 24.0,
            "drift.min_predictions": 200,
            "drift.alpha": 0.01,
            "drift.min_effect": 0.2,
            "drift.cooldown_hours": 12.0,
        }
    )


def log_predictions(
    settings: Settings, bundle: Bundle, images: np.ndarray, version: int = 1, hours_ago: float = 1
) -> None:
    probabilities, embedding = bundle.predict(images)
    log = open_log(settings.predictions_url)
    rows = [
        Prediction(
            time=NOW - timedelta(hours=hours_ago),
            model_version=version,
            bundle_digest=bundle.digest,
            predicted=int(row.argmax()),
            probabilities=row,
            embedding=vector,
            statistics=statistics(image),
        )
        for image, row, vector in zip(images, probabilities, embedding, strict=True)
    ]
    log.append(rows)
    log.close()


@pytest.fixture
def random_300(digit_images: np.ndarray) -> np.ndarray:
    return digit_images[np.random.default_rng(0).choice(len(digit_images), 300, replace=False)]


def test_clean_then_corrupted(settings, params, digits_bundle, random_300) -> None:
    releases.publish(digits_bundle, 1, settings)
    log_predictions(settings, digits_bundle, random_300)
    clean = run_check(settings, params, NOW)
    assert (clean.outcome, clean.result.n, clean.model_version) == ("no_drift", 300, 1)
    log_predictions(settings, digits_bundle, 255 - random_300)
    corrupted = run_check(settings, params, NOW)
    assert (corrupted.outcome, corrupted.result.n) == ("drift", 600)
    last = open_log(settings.predictions_url).last_check()
    assert last is not None
    assert (last.id, last.outcome, last.since) == (corrupted.id, "drift", NOW - timedelta(hours=24))
    assert last.result["features"][0]["name"] == "P(0)"
    assert last.result["report"] == str(corrupted.report)
    assert json.loads(json.dumps(corrupted.as_dict()))["result"]["outcome"] == "drift"


def test_report_is_one_file_that_says_what_was_decided(
    settings, params, digits_bundle, random_300
) -> None:
    releases.publish(digits_bundle, 1, settings)
    log_predictions(settings, digits_bundle, 255 - random_300)
    check = run_check(settings, params, NOW)
    assert check.report is not None
    assert check.report.parent == settings.home / "drift"
    page = check.report.read_text()
    assert check.result.summary in page
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.https?:", page) == []
    told = re.search(r"Drift is detected for ([\d.]+)% of columns \((\d+) out of (\d+)\)", page)
    assert told is not None
    assert int(told[2]) == len(check.result.drifted)
    assert int(told[3]) == len(check.result.features)


def test_only_the_window_and_the_release_in_service_count(
    settings, params, digits_bundle, make_bundle, random_300
) -> None:
    old = make_bundle(0.01, "old")
    releases.publish(digits_bundle, 2, settings)
    log_predictions(settings, digits_bundle, random_300[:150], version=2)
    log_predictions(settings, digits_bundle, random_300, version=2, hours_ago=25)
    log_predictions(settings, old, random_300, version=1)
    check = run_check(settings, params, NOW)
    assert (check.outcome, check.result.n, check.report) == ("too_few", 150, None)


def test_nothing_promoted_is_said(settings, params) -> None:
    with pytest.raises(BundleError, match="no release"):
        run_check(settings, params)


def test_unreachable_log_is_said(settings, params, digits_bundle) -> None:
    releases.publish(digits_bundle, 1, settings)
    address = SecretStr("postgresql://me@127.0.0.1:1/visionloop")
    away = settings.model_copy(update={"database_url": address})
    with pytest.raises(ServiceError, match="VISIONLOOP_DATABASE_URL"):
        run_check(away, params)


def test_drift_retrains_once_per_cooldown(settings, params, digits_bundle, random_300) -> None:
    releases.publish(digits_bundle, 1, settings)
    log_predictions(settings, digits_bundle, 255 - random_300)
    log = open_log(settings.predictions_url)
    first, second = run_check(settings, params, NOW), run_check(settings, params, NOW)
    assert should_retrain(log, first, params.drift, NOW)[0]
    later = NOW + timedelta(hours=params.drift.cooldown_hours)
    allowed, reason = should_retrain(log, second, params.drift, later - timedelta(minutes=1))
    assert not allowed
    assert f"check {first.id}" in reason
    assert should_retrain(log, second, params.drift, later)[0]


def test_no_drift_does_not_retrain(settings, params, digits_bundle, random_300) -> None:
    releases.publish(digits_bundle, 1, settings)
    log = open_log(settings.predictions_url)
    few = run_check(settings, params, NOW)
    log_predictions(settings, digits_bundle, random_300)
    clean = run_check(settings, params, NOW)
    assert not should_retrain(log, few, params.drift, NOW)[0]
    assert not should_retrain(log, clean, params.drift, NOW)[0]


def test_two_checks_at_once_retrain_once(settings, params, digits_bundle, random_300) -> None:
    releases.publish(digits_bundle, 1, settings)
    log_predictions(settings, digits_bundle, 255 - random_300)
    checks = [run_check(settings, params, NOW) for _ in range(2)]
    gate = threading.Barrier(2)
    answers: list[bool] = []

    def ask(check) -> None:
        log = open_log(settings.predictions_url)
        gate.wait()
        answers.append(should_retrain(log, check, params.drift, NOW)[0])

    threads = [threading.Thread(target=ask, args=(check,)) for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, True]


def test_predictions_that_started_a_training_run_are_not_judged_again(
    settings: Settings, params: Params, digits_bundle: Bundle, random_300: np.ndarray
) -> None:
    releases.publish(digits_bundle, 1, settings)
    log_predictions(settings, digits_bundle, 255 - random_300)
    check = run_check(settings, params, NOW)
    assert check.outcome == "drift"
    log = open_log(settings.predictions_url)
    log.record_trigger(check.id, "run")
    log.close()
    assert run_check(settings, params, NOW + timedelta(minutes=1)).outcome == "too_few"
    log_predictions(settings, digits_bundle, random_300, hours_ago=-0.5)
    assert run_check(settings, params, NOW + timedelta(hours=1)).outcome == "no_drift"
