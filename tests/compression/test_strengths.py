"""Which strengths are built, which are passed over and why, and what a killed search keeps."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.compression import search as searching
from tasks.compression.context import Context
from tasks.compression.search import Search


@pytest.fixture
def brief(context: Context) -> Context:
    """Students of three widths that learn for one epoch; nothing is pruned."""
    context.folder.mkdir(exist_ok=True)
    return with_params(context, widths=[4, 8, 16], epochs=1)


def with_params(context: Context, minutes: float | None = None, **distil: Any) -> Context:
    values = context.params.model_dump() | {"minutes": minutes}
    values["distil"] |= distil
    return replace(context, params=type(context.params).model_validate(values))


def with_budget(context: Context, drop: float, agreement: float) -> Context:
    assert context.budget is not None
    limits = {"max_accuracy_drop": drop, "min_agreement": agreement}
    return replace(context, budget=context.budget.model_copy(update=limits))


@pytest.fixture
def students_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ladders = searching.ladders
    monkeypatch.setattr(searching, "ladders", lambda context: ladders(context)[:1])


def searched(context: Context) -> Search:
    search = Search(context)
    search.run()
    return search


def names(search: Search) -> list[str]:
    return [c.name for c in search.candidates if c.runtime == "onnxruntime"]


@pytest.mark.usefixtures("students_only")
def test_where_the_middle_keeps_the_budget_only_smaller_ones_are_tried(brief: Context) -> None:
    search = searched(with_budget(brief, 1.0, 0.0))
    students = ["distilled-w8", "distilled-w8-int8", "distilled-w4", "distilled-w4-int8"]
    assert names(search) == ["fp32", "fp32-int8", *students]
    (passed,) = search.skipped
    assert (passed.name, passed.reason) == (
        "distilled-w16",
        "distilled-w8 is smaller and keeps the budget",
    )


@pytest.mark.usefixtures("students_only")
def test_where_the_middle_misses_it_only_larger_ones_are_tried(brief: Context) -> None:
    search = searched(with_budget(brief, 0.0, 1.0))
    assert "distilled-w8" in names(search)
    reasons = {row.name: row.reason for row in search.skipped}
    assert reasons["distilled-w4"] == "distilled-w8, which is milder, does not keep the budget"
    assert ("distilled-w16" in names(search)) != ("distilled-w16" in reasons)


@pytest.mark.usefixtures("students_only")
def test_a_larger_one_is_not_trained_when_something_that_keeps_the_budget_is_faster(
    brief: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latency stands for the size of the file here: tests do not rest on a clock."""

    def timed(runs: dict[str, Path], times: int) -> dict[str, Any]:
        return {name: latency_by_size(path) for name, path in runs.items()}

    monkeypatch.setattr(searching, "onnx_run", lambda path, image, threads, runtime: path)
    monkeypatch.setattr(searching, "choose_threads", lambda path, image, times: 1)
    monkeypatch.setattr(searching, "measure_latency", timed)
    strict = with_params(with_budget(brief, 0.0, 1.0), widths=[64, 48, 4], epochs=1)
    search = searched(strict)
    (dropped,) = [row for row in search.skipped if row.name == "distilled-w64"]
    assert "its shape alone takes" in dropped.reason
    assert ", which keeps the budget, " in dropped.reason


@pytest.mark.parametrize(("power", "slow"), [(1, False), (-1, True)])
def test_int8_that_is_slower_than_its_parent_does_not_stand_for_its_network(
    context: Context, monkeypatch: pytest.MonkeyPatch, power: int, slow: bool
) -> None:
    """Latency stands for the size of the file, or for its inverse: int8 is the smaller."""
    monkeypatch.setattr(searching, "onnx_run", lambda path, image, threads, runtime: path)
    monkeypatch.setattr(searching, "choose_threads", lambda path, image, times: 1)
    monkeypatch.setattr(
        searching,
        "measure_latency",
        lambda runs, times: {name: latency_by_size(path, power) for name, path in runs.items()},
    )
    context.folder.mkdir(exist_ok=True)
    search = searched(with_params(context, minutes=1e-9))
    fp32, int8 = search.candidates
    assert not search._is_slow(fp32)
    assert search._is_slow(int8) is slow


def latency_by_size(path: Path, power: int = 1) -> Any:
    from tasks.compression.measure import Latency

    return Latency(float(path.stat().st_size) ** power, 0.0)


def test_when_the_time_is_up_nothing_more_is_trained(context: Context) -> None:
    context.folder.mkdir(exist_ok=True)
    search = searched(with_params(context, minutes=1e-9))
    assert names(search) == ["fp32", "fp32-int8"]
    assert {row.name for row in search.skipped} == {"distilled", "pruned"}
    assert "compress.minutes" in search.skipped[0].reason


@pytest.mark.usefixtures("students_only")
def test_a_second_search_goes_on_from_what_is_built_unless_it_was_altered(
    brief: Context, caplog: pytest.LogCaptureFixture
) -> None:
    easy = with_budget(brief, 1.0, 0.0)
    first = searched(easy)
    with caplog.at_level(logging.INFO):
        again = searched(easy)
    assert caplog.text.count("went on from what was built before") == 3
    assert again.candidates == first.candidates
    assert again.skipped == first.skipped

    graph = easy.folder / "distilled-w8-int8.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])
    caplog.clear()
    with caplog.at_level(logging.INFO):
        mended = searched(easy)
    assert caplog.text.count("went on from what was built before") == 2
    assert graph.read_bytes() == whole
    assert mended.candidates == first.candidates
