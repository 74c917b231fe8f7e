"""The outbox: nothing recorded is lost, by whatever kills or doubles the writer."""

import multiprocessing
import os
from pathlib import Path

import pytest

from tasks.params import Settings
from tasks.tracking import NoLog, Recorder, RunLog, open_run, outbox, read_events


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def _kinds(recorder: Recorder) -> list[str]:
    return [event["type"] for event in read_events(recorder.directory)]


def test_everything_recorded_is_read_back_in_order(settings: Settings, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>first</p>")
    run = open_run("train-1", "train", parent="tune-1", settings=settings)
    run.params({"lr": 0.1, "augment": {"flip": False, "shift": 0.1}})
    run.metrics({"loss": float("nan"), "accuracy": 0.5}, step=3)
    run.tags({"technique": "int8"})
    run.file(report, "plots")
    report.write_text("<p>changed later</p>")
    run.dataset("digits", "abc", "data/raw/digits", {"train": 10, "test": 2})
    run.finish()

    events = read_events(run.directory)

    assert [event["n"] for event in events] == list(range(7))
    assert (events[0]["name"], events[0]["parent"]) == ("train", "tune-1")
    assert events[1]["values"] == {"lr": 0.1, "augment.flip": False, "augment.shift": 0.1}
    assert events[2]["step"] == 3
    assert events[2]["values"]["loss"] != events[2]["values"]["loss"]  # NaN survives
    assert events[5]["counts"] == {"train": 10, "test": 2}
    assert events[6]["status"] == "FINISHED"
    assert (run.directory / "files" / events[4]["path"]).read_text() == "<p>first</p>"


def test_a_second_step_adds_to_the_run(settings: Settings) -> None:
    open_run("train-1", "train", settings=settings).finish()
    open_run("train-1", "train", settings=settings).metrics({"accuracy": 0.9})
    run = open_run("train-1", "train", settings=settings)
    assert _kinds(run) == ["run", "finish", "metrics"]


def test_restart_starts_a_finished_run_over_and_an_unfinished_one_not(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    run = open_run("train-1", "train", settings=settings)
    run.file(tmp_path / "a.txt")
    generation = read_events(run.directory)[0]["generation"]

    open_run("train-1", "train", settings=settings, restart=True)
    assert _kinds(run) == ["run", "file"]

    run.finish()
    again = open_run("train-1", "train", settings=settings, restart=True)
    assert _kinds(again) == ["run"]
    assert read_events(again.directory)[0]["generation"] != generation
    assert not (again.directory / "files" / "a.txt").exists()


@pytest.mark.parametrize("torn", [b'{"n": 2, "type": "metr', b"\0\0\0\0", b'{"n": 9}\n'])
def test_a_torn_last_line_is_ignored_and_overwritten(settings: Settings, torn: bytes) -> None:
    run = open_run("train-1", "train", settings=settings)
    run.metrics({"loss": 1.0}, step=0)
    with open(run.directory / "events.jsonl", "ab") as stream:
        stream.write(torn)
    assert _kinds(run) == ["run", "metrics"]

    open_run("train-1", "train", settings=settings).metrics({"loss": 0.5}, step=1)
    run.metrics({"loss": 0.2}, step=2)

    assert [event.get("step") for event in read_events(run.directory)] == [None, 0, 1, 2]


def _write(home: Path, writer: int) -> None:
    run = open_run("train-1", "train", settings=Settings(home=home))
    for step in range(300):
        run.metrics({f"writer{writer}": step}, step=step)


def test_processes_writing_one_run_lose_and_mix_nothing(settings: Settings) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(settings.home, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    events = read_events(outbox(settings) / "train-1")

    assert [event["type"] for event in events].count("run") == 1
    for n in range(3):
        steps = [
            e["step"] for e in events if e["type"] == "metrics" and f"writer{n}" in e["values"]
        ]
        assert steps == list(range(300))


def test_a_full_disk_raises_and_leaves_a_readable_run(settings: Settings) -> None:
    run = open_run("train-1", "train", settings=settings)
    run.metrics({"loss": 1.0}, step=0)
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (run.directory / "events.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            run.metrics({"loss": 0.5}, step=1)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert _kinds(run) == ["run", "metrics"]
    run.metrics({"loss": 0.5}, step=1)
    assert _kinds(run) == ["run", "metrics", "metrics"]


def test_what_would_leave_the_outbox_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.\./x"):
        open_run("../x", "x", settings=settings)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="inside the run"):
        open_run("train-1", "train", settings=settings).file(tmp_path / "a.txt", "../..")


def test_no_log_takes_the_same_calls() -> None:
    def use(run: RunLog) -> None:
        run.params({"a": 1})
        run.metrics({"a": 1.0}, step=1)
        run.tags({"a": "b"})
        run.file(Path("missing"), "plots")
        run.dataset("digits", "abc", "here", {"train": 1})
        run.finish()

    use(NoLog())


def test_reading_a_run_that_is_not_there_gives_nothing(tmp_path: Path) -> None:
    assert read_events(tmp_path / "nothing") == []
