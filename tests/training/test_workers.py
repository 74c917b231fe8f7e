"""Several workers of one study: real processes, a real PostgreSQL, one of them killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import SecretStr

from tasks.data.shards import Shards
from tasks.errors import ParamsError, ServiceError
from tasks.params import Settings, load_settings
from tasks.training import tune, worker
from tasks.training.models import load_model
from tasks.training.storage import place_of

ROOT = Path(__file__).parents[2]
TRIALS = 5
BUDGET = {"trials": TRIALS, "epochs": 4, "pruner": "none", "sampler": "random"}
Workspace = Callable[..., Path]


@pytest.fixture(params=["journal", pytest.param("postgres", marks=pytest.mark.postgres)])
def storage(request: pytest.FixtureRequest) -> str | None:
    """VISIONLOOP_STUDY_STORAGE: an empty database, or None for a journal."""
    if request.param == "journal":
        return None
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, storage: str | None) -> Path:
    made = workspace("sweep", tune=BUDGET)
    monkeypatch.chdir(made)
    monkeypatch.setenv("VISIONLOOP_HOME", str(made / "home"))
    if storage is not None:
        monkeypatch.setenv("VISIONLOOP_STUDY_STORAGE", storage)
    return made


@pytest.fixture
def started() -> Any:
    """Starts a worker process; what is left of them at the end is killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tasks.training.worker"]
        with open(folder / f"{name}.log", "w") as output:
            process = subprocess.Popen(command, cwd=folder, env=environment, stderr=output)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def trials_of(storage: str | None) -> list[FrozenTrial]:
    """The study's trials, read as anybody would with Optuna; [] before there is one."""
    if storage is None:
        (journal,) = list(Path("home/studies").glob("*.log")) or [None]
        if journal is None:
            return []
        backend: Any = JournalStorage(JournalFileBackend(str(journal)))
    else:
        backend = RDBStorage(storage)
    names = optuna.get_all_study_names(backend)
    return optuna.load_study(study_name=names[0], storage=backend).trials if names else []


def wait_until(condition: Callable[[], bool], processes: Mapping[str, Any], folder: Path) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        for name, process in processes.items():
            assert process.poll() is None, (folder / f"{name}.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_of_two_workers_is_killed_and_every_trial_is_accounted_for(
    folder: Path, storage: str | None, started: Any, shards: Shards
) -> None:
    workers = {name: started(folder, name) for name in ("one", "two")}

    def two_at_work() -> bool:
        """Both have a trial; the first is stopped, so that it keeps its own."""
        if len(list(Path("home/tracking").glob("*-trial-*"))) < 2:
            return False
        workers["one"].send_signal(signal.SIGSTOP)
        if sum(trial.state is TrialState.RUNNING for trial in trials_of(storage)) == 2:
            return True
        workers["one"].send_signal(signal.SIGCONT)
        return False

    wait_until(two_at_work, workers, folder)
    workers["one"].send_signal(signal.SIGKILL)
    workers["one"].wait()
    assert workers["two"].wait(200) == 0, (folder / "two.log").read_text()

    trials = trials_of(storage)
    assert all(trial.state.is_finished() for trial in trials)
    lost = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert len(lost) == 1
    (again,) = [t for t in trials if t.user_attrs.get("retry_of") == lost[0].number]
    assert (again.state, again.params) == (TrialState.COMPLETE, lost[0].params)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == TRIALS
    assert len({trial.params["lr"] for trial in complete}) == TRIALS  # none twice
    assert "its worker was killed; it is tried again" in (folder / "two.log").read_text()

    tune.main()  # nothing is left to train: the outcome is written
    assert len(trials_of(storage)) == len(trials)
    rows = list(csv.DictReader(Path("data/tune/trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == [str(trial.number) for trial in trials]
    assert rows[lost[0].number]["error"] == "its worker was killed"
    assert rows[again.number]["retry_of"] == str(lost[0].number)
    best = min(complete, key=lambda trial: trial.value or 0.0)
    assert f"trial: {best.number}" in Path("data/tune/best.yaml").read_text()


def test_a_worker_that_finds_the_sweep_finished_ends(folder: Path, storage: str | None) -> None:
    first = worker.work(load_settings())
    assert first == TRIALS
    assert worker.work(load_settings()) == TRIALS
    assert len(trials_of(storage)) == TRIALS


def test_the_weights_of_the_best_trials_are_kept_and_no_others(
    folder: Path, storage: str | None
) -> None:
    from tasks.training.best import best_models

    tune.main()
    order = sorted(trials_of(storage), key=lambda trial: trial.value or 0.0)[:2]
    kept = best_models(2, Path("home"))
    assert [path.name for path in kept] == [f"trial-{trial.number}" for trial in order]
    (study,) = Path("home/studies").glob("tune-*/")
    assert {path.name for path in study.glob("trial-*")} == {path.name for path in kept}
    _, spec = load_model(kept[0])
    assert spec.classes == ("0", "1", "2", "3")


def test_a_worker_with_other_params_or_images_is_refused(folder: Path, storage: str | None):
    with pytest.raises(ParamsError, match=r"are those of study tune-.*, not tune-other"):
        worker.work(load_settings(), "tune-other")
    assert trials_of(storage) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlite:///study.db", "is not postgresql://"),
        ("secret", "is not postgresql://"),
        ("postgresql://user:secret@127.0.0.1:1/none", r"127\.0\.0\.1:1/none cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(address: str, said: str):
    with pytest.raises((ParamsError, ServiceError), match=said) as caught:
        place_of("tune-1", Settings(study_storage=SecretStr(address)))
    assert "secret" not in str(caught.value)


def test_a_half_written_line_of_a_killed_worker_is_cut_off(settings: Settings):
    place = place_of("tune-1", settings)
    optuna.create_study(storage=place.storage(), study_name="one")
    with open(settings.home / "studies/tune-1.log", "a") as journal:
        journal.write('{"op_code": 0, "study_n')
    optuna.create_study(storage=place.storage(), study_name="two")
    assert optuna.get_all_study_names(place.storage()) == ["one", "two"]


def test_who_is_at_work_is_known(settings: Settings, storage: str | None):
    if storage is not None:
        settings = settings.model_copy(update={"study_storage": SecretStr(storage)})
    one, other = place_of("tune-1", settings), place_of("tune-1", settings)
    place_of("tune-2", settings)
    assert (one.others(), other.others()) == (1, 1)
    assert other.alive(one.worker)
    one.close()
    assert other.others() == 0
    assert not other.alive(one.worker)
