"""What was recorded arrives in MLflow, whole and once, whatever was interrupted."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.errors import ServiceError
from tasks.params import Settings
from tasks.ports import free_port
from tasks.registry import connection
from tasks.registry.connection import EXPERIMENT
from tasks.registry.sync import follow, run_id_of, sync_all
from tasks.tracking import open_run

pytestmark = pytest.mark.timeout(280)  # the first test waits for the server


def _runs(client: MlflowClient) -> dict:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def _history(client: MlflowClient, run, name: str) -> list[tuple[int, float]]:
    points = client.get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in points]


def _record_sweep(settings: Settings, report: Path) -> None:
    sweep = open_run("tune-1", "sweep", settings=settings)
    for number in range(2):
        trial = open_run(f"tune-1-trial-{number}", f"trial {number}", "tune-1", settings)
        trial.params({"lr": 0.1 * number})
        for epoch in range(5):
            trial.metrics({"loss": 1 / (epoch + 1)}, step=epoch)
        trial.finish("KILLED" if number else "FINISHED")
    sweep.file(report, "plots")
    sweep.finish()


def test_a_sweep_arrives_with_nested_trials_curves_and_files(
    settings: Settings, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "history.html").write_text("<p>history</p>")
    _record_sweep(settings, tmp_path / "history.html")

    assert sync_all(settings) == 3 + 2 * 8

    runs = _runs(client)
    sweep, first, second = runs["sweep"], runs["trial 0"], runs["trial 1"]
    assert first.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert (sweep.info.status, second.info.status) == ("FINISHED", "KILLED")
    assert second.data.params == {"lr": "0.1"}
    assert _history(client, first, "loss") == [(e, pytest.approx(1 / (e + 1))) for e in range(5)]
    assert [file.path for file in client.list_artifacts(sweep.info.run_id, "plots")] == [
        "plots/history.html"
    ]
    assert run_id_of("tune-1", settings) == sweep.info.run_id


def test_a_trial_of_another_machine_is_nested_in_the_sweep_that_began_here(
    settings: Settings, client: MlflowClient, tmp_path: Path
) -> None:
    open_run("tune-3", "sweep", settings=settings)
    sync_all(settings)
    elsewhere = settings.model_copy(update={"home": tmp_path / "elsewhere"})
    open_run("tune-3-trial-7", "trial 7", "tune-3", elsewhere).finish()
    sync_all(elsewhere)
    runs = _runs(client)
    assert runs["trial 7"].data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id


def test_what_was_sent_is_not_sent_again_and_what_is_new_is_added(
    settings: Settings, client: MlflowClient
) -> None:
    run = open_run("train-1", "train", settings=settings)
    run.metrics({"loss": 1.0}, step=0)
    assert sync_all(settings) == 2
    assert sync_all(settings) == 0
    run.metrics({"loss": 0.5}, step=1)
    run.finish()
    open_run("train-1", "train", settings=settings).metrics({"test_accuracy": 0.98})
    assert sync_all(settings) == 3

    train = _runs(client)["train"]
    assert _history(client, train, "loss") == [(0, 1.0), (1, 0.5)]
    assert train.data.metrics["test_accuracy"] == 0.98
    assert train.info.status == "FINISHED"


def test_a_crash_before_the_mark_leaves_no_trace(settings: Settings, client: MlflowClient) -> None:
    run = open_run("train-1", "train", settings=settings)
    run.params({"lr": 0.1})
    run.metrics({"loss": 1.0}, step=0)
    run.dataset("digits", "abc", "data/raw/digits", {"train": 7, "test": 3})
    sync_all(settings)
    (run.directory / "sent.json").unlink()  # as if killed between the requests and the mark

    assert sync_all(settings) == 4

    runs = _runs(client)
    assert list(runs) == ["train"]
    assert _history(client, runs["train"], "loss") == [(0, 1.0)]
    (dataset,) = runs["train"].inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "abc")
    assert '"num_rows": 10' in dataset.dataset.profile


def test_epochs_repeated_by_a_killed_step_count_once(
    settings: Settings, client: MlflowClient
) -> None:
    for _ in range(2):  # killed after two epochs without a checkpoint, and run again
        run = open_run("train-1", "train", settings=settings, restart=True)
        for epoch in range(2):
            run.metrics({"loss": 1.0 - epoch / 2}, step=epoch)
    sync_all(settings)
    assert _history(client, _runs(client)["train"], "loss") == [(0, 1.0), (1, 0.5)]


def test_a_run_that_was_started_over_is_a_new_mlflow_run(
    settings: Settings, client: MlflowClient
) -> None:
    open_run("train-1", "train", settings=settings).finish()
    first = run_id_of("train-1", settings)
    open_run("train-1", "train", settings=settings, restart=True).metrics({"loss": 0.1}, step=0)
    second = run_id_of("train-1", settings)
    assert first != second
    assert client.get_run(second).data.metrics == {"loss": 0.1}


def test_a_run_deleted_in_mlflow_is_sent_anew(settings: Settings, client: MlflowClient) -> None:
    run = open_run("train-1", "train", settings=settings)
    run.metrics({"loss": 1.0}, step=0)
    first = run_id_of("train-1", settings)
    client.delete_run(first)
    run.metrics({"loss": 0.5}, step=1)
    second = run_id_of("train-1", settings)
    assert second != first
    assert _history(client, client.get_run(second), "loss") == [(0, 1.0), (1, 0.5)]


def test_odd_names_long_values_and_changed_params_do_not_stop_the_outbox(
    settings: Settings, client: MlflowClient
) -> None:
    run = open_run("train-1", "train", settings=settings)
    run.params({"text": "x" * 9000, "lr": 0.1} | {f"p{n}": n for n in range(250)})
    run.params({"lr": 0.2})
    run.metrics({"recall/Löwe (jung) #1": 0.5, "loss": float("nan"), "worst": float("inf")})
    run.metrics({f"m{n}": n for n in range(1700)})
    sync_all(settings)

    data = _runs(client)["train"].data
    assert data.metrics["recall/Löwe _jung_ _1"] == 0.5
    assert data.metrics["loss"] != data.metrics["loss"]
    assert (data.metrics["m1699"], data.params["p249"]) == (1699.0, "249")
    assert (data.params["lr"], data.tags["latest.lr"]) == ("0.1", "0.2")


def test_a_step_that_was_killed_and_run_again_may_record_its_params_twice(
    settings: Settings, client: MlflowClient
) -> None:
    run = open_run("train-1", "train", settings=settings)
    for rate in (0.1, 0.1, 0.2, 0.3):
        run.params({"lr": rate, "epochs": 3})
    sync_all(settings)
    data = _runs(client)["train"].data
    assert (data.params["lr"], data.params["epochs"]) == ("0.1", "3")
    assert data.tags["latest.lr"] == "0.3"


@contextmanager
def _failing_proxy(target: str, connections: int, port: int) -> Iterator[str]:
    """A way to the server that breaks after so many connections, in the middle of an answer."""
    host, _, target_port = target.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", port))
    left = connections

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            sink.close()

    def serve() -> None:
        nonlocal left
        while True:
            try:
                inner, _ = listener.accept()
            except OSError:
                return
            left -= 1
            if left < 0:
                inner.close()
                continue
            outer = socket.create_connection((host, int(target_port)))
            request = inner.recv(65536)
            outer.sendall(request.replace(b"keep-alive", b"close", 1))
            threading.Thread(target=pump, args=(inner, outer), daemon=True).start()
            pump(outer, inner)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        listener.close()


@pytest.mark.parametrize("connections", [4, 7])
def test_a_server_lost_in_the_middle_is_an_error_and_nothing_is_lost_or_doubled(
    settings: Settings,
    client: MlflowClient,
    mlflow_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    connections: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "history.html").write_text("<p>history</p>")
    _record_sweep(settings, tmp_path / "history.html")
    with _failing_proxy(mlflow_server, connections, free_port()) as address:
        broken = settings.model_copy(update={"tracking_uri": address})
        with pytest.raises(ServiceError, match=address):
            sync_all(broken)

    sync_all(settings)

    runs = _runs(client)
    assert sorted(runs) == ["sweep", "trial 0", "trial 1"]
    assert len(client.search_runs([runs["sweep"].info.experiment_id])) == 3
    for number in range(2):
        assert len(_history(client, runs[f"trial {number}"], "loss")) == 5


def test_an_unreachable_server_is_named_and_what_was_recorded_stays(settings: Settings) -> None:
    run = open_run("train-1", "train", settings=settings)
    gone = settings.model_copy(update={"tracking_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(ServiceError, match=f"{gone.tracking_uri}; start it with `make up`"):
        sync_all(gone)
    assert (run.directory / "events.jsonl").exists()
    assert sync_all(settings) == 1


def test_a_server_that_never_answers_does_not_hang_us(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceError, match="not MLflow"):
            sync_all(settings.model_copy(update={"tracking_uri": address}))


def test_an_address_that_is_not_http_is_refused(settings: Settings) -> None:
    with pytest.raises(ServiceError, match=r"MLFLOW_TRACKING_URI is 'sqlite:///a\.db'"):
        sync_all(settings.model_copy(update={"tracking_uri": "sqlite:///a.db"}))


def test_following_shows_the_curve_while_the_run_goes_on(
    settings: Settings, client: MlflowClient
) -> None:
    stop = threading.Event()
    follower = threading.Thread(target=follow, args=(settings, stop, 0.05))
    follower.start()
    try:
        run = open_run("train-1", "train", settings=settings)
        run.metrics({"loss": 1.0}, step=0)
        deadline = time.monotonic() + 60
        while not _arrived(client) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _runs(client)["train"].info.status == "RUNNING"
        run.metrics({"loss": 0.5}, step=1)
        run.finish()
    finally:
        stop.set()
        follower.join(60)
    train = _runs(client)["train"]
    assert (train.info.status, train.data.metrics["loss"]) == ("FINISHED", 0.5)


def _arrived(client: MlflowClient) -> bool:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return experiment is not None and bool(client.search_runs([experiment.experiment_id]))
