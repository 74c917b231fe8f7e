"""Timing side by side, on functions that take as long as they are told."""

import itertools
from typing import Any

import pytest

from tasks.compression import measure
from tasks.compression.measure import compare_latency, measure_latency


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day, which stands still but for what a test adds to it."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    return now


def takes(clock: list[float], seconds: Any) -> Any:
    turns = itertools.cycle(seconds)

    def run() -> None:
        clock[0] += next(turns)

    return run


def test_steady_ratios_end_after_ten_rounds(clock: list[float]) -> None:
    runs = {"fp32": takes(clock, [0.010]), "int8": takes(clock, [0.004])}
    found = compare_latency(runs, "fp32", 50)
    assert (found.rounds, found.noise) == (10, pytest.approx(0, abs=1e-9))
    int8 = found.latency["int8"]
    assert (int8.median_ms, int8.p95_ms) == (pytest.approx(4), pytest.approx(4))
    assert (int8.ratio, int8.ratio_low, int8.ratio_high) == pytest.approx((0.4, 0.4, 0.4))
    assert found.latency["fp32"].ratio == 1.0


def test_a_machine_that_slows_down_changes_no_ratio(clock: list[float]) -> None:
    """Both take twice as long in every other round of three warm-up and five timed runs."""
    pace = [1.0] * 8 + [2.0] * 8
    runs = {
        "fp32": takes(clock, [0.010 * share for share in pace]),
        "int8": takes(clock, [0.004 * share for share in pace]),
    }
    found = compare_latency(runs, "fp32", 50)
    assert found.rounds == 10
    assert found.latency["int8"].ratio == pytest.approx(0.4)
    assert found.noise > 0.5


def test_ratios_that_jump_are_measured_for_longer_and_end_with_wide_intervals(
    clock: list[float],
) -> None:
    pace = [1.0] * 8 + [2.0] * 8 + [1.5] * 8
    runs = {"fp32": takes(clock, [0.010]), "int8": takes(clock, [0.004 * s for s in pace])}
    found = compare_latency(runs, "fp32", 50)
    int8 = found.latency["int8"]
    assert found.rounds == 40
    assert int8.ratio_low < int8.ratio < int8.ratio_high
    assert int8.ratio_high / int8.ratio_low > 1.04


def test_what_takes_long_is_warmed_up_once_a_round(clock: list[float]) -> None:
    calls = {"quick": 0, "slow": 0}

    def counted(name: str, seconds: float) -> Any:
        def run() -> None:
            calls[name] += 1
            clock[0] += seconds

        return run

    measure_latency({"quick": counted("quick", 0.004), "slow": counted("slow", 0.4)}, 20)
    assert calls == {"quick": 10 * (3 + 2), "slow": 10 * (1 + 2)}
