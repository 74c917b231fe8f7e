"""The prediction log on SQLite and on PostgreSQL: nothing lost, nothing mixed up."""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import DataError, ServiceError
from tasks.predictions import Prediction, PredictionLog, open_log
from tasks.predictions import log as log_module
from tasks.serving.prediction_writer import PredictionWriter

NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'predictions.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def log(url: str) -> Iterator[PredictionLog]:
    log = open_log(url)
    yield log
    log.close()


def row(index: int = 0, digest: str = "a", classes: int = 3, version: int = 1) -> Prediction:
    random = np.random.default_rng(index)
    return Prediction(
        time=NOON + timedelta(minutes=index),
        model_version=version,
        bundle_digest=digest * 64,
        predicted=index % classes,
        probabilities=random.dirichlet(np.ones(classes)).astype(np.float32),
        embedding=random.normal(size=16).astype(np.float32),
        statistics=random.random(5).astype(np.float32),
    )


def test_a_window_gives_back_what_was_appended(log: PredictionLog) -> None:
    rows = [row(index) for index in range(90)]
    log.append(rows[:40])
    log.append(rows[40:])
    window = log.window(NOON, NOON + HOUR)
    assert len(window) == window.total == 60
    inside = rows[:60]  # the row at `until` belongs to the next window
    for name in ("probabilities", "embedding", "statistics"):
        got = getattr(window, name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.stack([getattr(one, name) for one in inside]))
    assert window.predicted.tolist() == [one.predicted for one in inside]
    assert window.times == [one.time for one in inside]


def test_times_of_any_zone_are_the_same_instant(log: PredictionLog) -> None:
    from zoneinfo import ZoneInfo

    berlin = NOON.astimezone(ZoneInfo("Europe/Berlin"))
    log.append([row()._replace(time=berlin)])
    assert log.window(NOON, NOON + HOUR).times == [NOON]
    assert log.count(berlin + HOUR, None) == 0


def test_an_empty_window(log: PredictionLog) -> None:
    window = log.window(NOON, NOON + HOUR)
    assert len(window) == 0
    assert window.probabilities.shape == (0, 0)
    assert window.statistics.shape == (0, 0)


def test_models_are_kept_apart(log: PredictionLog) -> None:
    log.append([row(1), row(2, "b", classes=5, version=2), row(3, "b", classes=5, version=2)])
    assert log.window(NOON, NOON + HOUR, bundle_digest="b" * 64).probabilities.shape == (2, 5)
    assert log.window(NOON, NOON + HOUR, model_version=1).probabilities.shape == (1, 3)
    assert log.count(model_version=2) == 2
    with pytest.raises(DataError, match="different outputs"):
        log.window(NOON, NOON + HOUR)


def test_a_long_window_is_thinned_evenly(
    log: PredictionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "WINDOW_ROWS", 25)
    # Two models take turns: thinning by row id would see only one residue.
    log.append([row(index, "ab"[index % 2]) for index in range(200)])
    window = log.window(NOON, NOON + 10 * HOUR, bundle_digest="b" * 64)
    assert window.total == 100
    assert len(window) == 25
    steps = {after - before for before, after in zip(window.times, window.times[1:], strict=False)}
    assert steps == {timedelta(minutes=8)}


def record(log: PredictionLog, outcome: str = "drift", at: datetime = NOON) -> int:
    return log.record_check(
        time=at,
        since=at - HOUR,
        until=at,
        model_version=4,
        bundle_digest="c" * 64,
        outcome=outcome,
        result={"features": [{"name": "probability of ünï", "distance": 0.5}]},
    )


def test_checks_are_remembered(log: PredictionLog) -> None:
    assert log.last_check() is None
    assert log.last_trigger() is None
    first, second = record(log), record(log, "no_drift")
    log.record_trigger(first, "run-1")
    newest, trigger = log.last_check(), log.last_trigger()
    assert newest is not None
    assert trigger is not None
    assert (newest.id, newest.outcome, newest.triggered) == (second, "no_drift", None)
    assert (trigger.id, trigger.triggered, trigger.time) == (first, "run-1", NOON)
    assert trigger.result["features"][0]["name"] == "probability of ünï"


def test_one_retraining_per_cooldown(log: PredictionLog) -> None:
    first, second = record(log), record(log)
    assert log.claim_retraining(first, NOON, HOUR) is None
    holder = log.claim_retraining(second, NOON + HOUR / 2, HOUR)
    assert holder is not None
    assert holder.id == first
    assert log.claim_retraining(second, NOON + HOUR, HOUR) is None


def test_a_claim_given_back_is_free(log: PredictionLog) -> None:
    first, second = record(log), record(log)
    assert log.claim_retraining(first, NOON, HOUR) is None
    log.release_claim(second)  # not its own: changes nothing
    assert log.claim_retraining(second, NOON, HOUR) is not None
    log.release_claim(first)
    assert log.claim_retraining(second, NOON, HOUR) is None


def test_of_concurrent_checks_exactly_one_may_retrain(url: str) -> None:
    """Each with its own connection, all released at once, onto a database not yet created."""
    gate = threading.Barrier(8)
    won: list[int] = []
    errors: list[Exception] = []

    def check() -> None:
        try:
            log = open_log(url)
            gate.wait()
            identifier = record(log)
            if log.claim_retraining(identifier, NOON, HOUR) is None:
                won.append(identifier)
            log.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(won) == 1


def test_concurrent_writers_lose_nothing(url: str) -> None:
    def write(writer: int) -> None:
        log = open_log(url)
        for batch in range(10):
            log.append([row(writer * 1000 + batch * 10 + index) for index in range(10)])
        log.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_log(url).count() == 400


def test_an_unreachable_server_is_named_without_its_password() -> None:
    log = open_log("postgresql://me:secret@127.0.0.1:1/visionloop")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1/visionloop") as raised:
        log.count()
    assert "secret" not in str(raised.value)
    assert "VISIONLOOP_DATABASE_URL" in str(raised.value)


@pytest.mark.parametrize("url", ["not an address:secret", "nosuchdatabase://me:secret@host/db"])
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="VISIONLOOP_DATABASE_URL") as raised:
        open_log(url)
    assert "secret" not in str(raised.value)


def wait_until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_writer_drains_on_close(url: str) -> None:
    writer = PredictionWriter(open_log(url))
    writer.start()
    for start in range(0, 3000, 100):
        writer.put([row(index) for index in range(start, start + 100)])
    writer.close()
    assert (writer.written, writer.lost) == (3000, 0)
    assert open_log(url).count() == 3000


def test_writer_waits_for_a_database_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is a file stands for a database that cannot be opened, then is mended."""
    place = tmp_path / "database"
    place.write_text("in the way")
    url = f"sqlite:///{place / 'predictions.db'}"
    writer = PredictionWriter(open_log(url))
    writer.start()
    writer.put([row(index) for index in range(50)])
    wait_until(lambda: "50 predictions wait" in caplog.text)
    place.unlink()
    wait_until(lambda: writer.written == 50)
    writer.close()
    assert open_log(url).count() == 50


def test_writer_outlasts_a_locked_database(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    writer = PredictionWriter(open_log(f"sqlite:///{path}"))
    writer.put([row()])
    writer.start()
    wait_until(lambda: writer.written == 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    writer.put([row(index) for index in range(1, 10)])  # returns: it does not wait for the lock
    assert writer.written == 1
    other.execute("ROLLBACK")
    writer.close()
    assert writer.written == 10


def test_writer_counts_what_it_cannot_keep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "database"
    place.write_text("in the way")
    caplog.set_level(logging.WARNING)
    writer = PredictionWriter(open_log(f"sqlite:///{place / 'predictions.db'}"), queue_rows=20)
    writer.put([row(index) for index in range(30)])
    assert writer.lost == 10
    writer.start()
    writer.close(seconds=0.5)
    assert (writer.written, writer.lost) == (0, 30)
    assert "30 predictions are lost" in caplog.text


def test_a_log_file_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    log = open_log(f"sqlite:///{path}")
    log.append([row(0)])
    path.rename(tmp_path / "old.db")
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with pytest.raises(ServiceError):
        log.append([row(1)])
    log.append([row(1)])
    assert log.count() == 1
