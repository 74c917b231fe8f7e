"""The choice by budget."""

from typing import Any

import pytest

from tasks.compression.candidates import Candidate
from tasks.compression.choose import choose, pareto_front
from tasks.errors import CompressionError
from tasks.schema import Budget


def candidate(name: str, accuracy: float, latency: float, size: int, **values: Any) -> Candidate:
    return Candidate(
        name=name,
        technique=name,
        file=f"{name}.onnx",
        parent=values.get("parent"),
        parameters=10,
        accuracy=accuracy,
        accuracy_low=accuracy - 0.01,
        accuracy_high=accuracy + 0.01,
        accuracy_change=0.0,
        accuracy_change_low=0.0,
        accuracy_change_high=0.0,
        worst_recall_change=0.0,
        worst_recall_class="a",
        agreement=1.0,
        calibration_error=0.0,
        parity_max_difference=0.0,
        parity_agreement=1.0,
        size_bytes=size,
        latency_ms=latency,
        memory_bytes=values.get("memory", 0),
    )


def budget(drop: float = 0.01, latency: float | None = None, size: float | None = None) -> Budget:
    return Budget(
        max_accuracy_drop=drop,
        min_agreement=0.0,
        max_latency_ms=latency,
        max_size_mb=size,
        max_memory_mb=None,
        otherwise="fail",
    )


FP32 = candidate("fp32", 0.98, 10.0, 4_000_000)
INT8 = candidate("fp32-int8", 0.975, 4.0, 1_000_000, parent="fp32")
SMALL = candidate("distilled", 0.90, 2.0, 500_000)


def verdicts(candidates: list[Candidate], limits: Budget) -> dict[str, str]:
    return {c.name: c.verdict for c in choose(candidates, limits)}


def test_fastest_within_the_accuracy_budget_is_chosen() -> None:
    found = verdicts([FP32, INT8, SMALL], budget())
    assert found == {"fp32": "eligible", "fp32-int8": "chosen", "distilled": "rejected"}


def test_a_drop_equal_to_the_limit_is_within_it() -> None:
    edge = candidate("distilled", 0.97, 2.0, 500_000)
    assert verdicts([FP32, edge], budget(0.01))["distilled"] == "chosen"


def test_int8_slower_than_its_own_parent_is_refused_whatever_fp32_takes() -> None:
    slow = candidate("distilled-int8", 0.98, 3.0, 100_000, parent="distilled")
    distilled = candidate("distilled", 0.98, 2.0, 500_000)
    judged = {c.name: c for c in choose([FP32, distilled, slow], budget())}
    assert judged["distilled-int8"].verdict == "rejected"
    assert "distilled" in judged["distilled-int8"].reason
    assert judged["distilled"].verdict == "chosen"


def test_within_three_percent_the_more_accurate_wins_and_then_the_smaller() -> None:
    fast = candidate("a", 0.975, 4.0, 100)
    better = candidate("b", 0.979, 4.1, 300)
    smaller = candidate("c", 0.979, 4.11, 200)
    slower = candidate("d", 0.98, 4.2, 10)
    assert verdicts([FP32, fast, better, smaller, slower], budget())["c"] == "chosen"


def test_size_and_latency_limits_hold() -> None:
    assert verdicts([FP32, INT8], budget(size=2))["fp32"] == "rejected"
    assert verdicts([FP32, INT8], budget(latency=5))["fp32"] == "rejected"


def test_a_limit_on_memory_holds_and_is_named() -> None:
    large = candidate("distilled", 0.98, 2.0, 500_000, memory=90_000_000)
    limit = budget().model_copy(update={"max_memory_mb": 80.0})
    judged = {c.name: c for c in choose([FP32, large], limit)}
    assert judged["distilled"].reason == "memory 90 MB exceeds budget.max_memory_mb 80"
    assert judged["fp32"].verdict == "chosen"


def test_impossible_budget_names_the_nearest_candidate_and_the_limit_it_misses() -> None:
    with pytest.raises(CompressionError, match=r"fp32-int8: .*max_latency_ms 3\.") as caught:
        choose([FP32, INT8], budget(latency=3.0))
    assert "fp32:" not in str(caught.value)


def test_fp32_goes_on_in_spite_of_the_budget_when_that_is_allowed() -> None:
    limits = budget(latency=3.0).model_copy(update={"otherwise": "fp32"})
    judged = {c.name: c for c in choose([FP32, INT8], limits)}
    assert {name: c.verdict for name, c in judged.items()} == {
        "fp32": "chosen",
        "fp32-int8": "rejected",
    }
    assert "budget.otherwise is fp32: no candidate meets" in judged["fp32"].reason
    fits = choose([FP32, INT8], budget(latency=5).model_copy(update={"otherwise": "fp32"}))
    assert [c.verdict for c in fits] == ["rejected", "chosen"]


def test_what_takes_longer_than_fp32_is_refused() -> None:
    slow = candidate("pruned", 0.98, 10.4, 100)
    judged = {c.name: c for c in choose([FP32, slow], budget())}
    assert judged["pruned"].reason == "takes 10.4 ms, fp32 only 10 ms"


def test_what_is_nearest_was_not_refused_for_another_reason() -> None:
    slow = candidate("distilled-int8", 0.98, 2.5, 100_000, parent="distilled")
    distilled = candidate("distilled", 0.98, 2.0, 500_000)
    with pytest.raises(CompressionError, match=r"distilled: size .*max_size_mb"):
        choose([FP32, distilled, slow], budget(size=0.05))


def test_a_rejected_export_stays_rejected() -> None:
    broken = candidate("pruned", 0.98, 1.0, 1).rejected("differs from its PyTorch model")
    assert verdicts([FP32, broken], budget()) == {"fp32": "chosen", "pruned": "rejected"}


def test_pareto_front_leaves_out_what_another_beats_in_everything() -> None:
    worse = candidate("pruned", 0.89, 2.5, 600_000)
    assert pareto_front([FP32, INT8, SMALL, worse]) == {"fp32", "fp32-int8", "distilled"}
