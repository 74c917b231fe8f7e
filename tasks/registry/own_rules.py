"""The gate's rules on what the bundles say of themselves: no image and no model is needed.

Takes the signed figures of metrics.json and bundle.json and the answers of reference.npz. A
figure that is not there leaves a rule with a limit unknown, and one without in peace.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from tasks.bundle import Bundle
from tasks.errors import DataError
from tasks.evaluation.two_bundles import recall_of_each
from tasks.registry.decision import Rule, listed
from tasks.schema import Budget, Gate

Figures = Mapping[str, Any]
Bound = Literal["at least", "at most"]
_MEGABYTE = 1e6
_HAIR = 1e-9  # 0.3 - 0.2 is not exactly 0.1


def own_rules(
    challenger: Bundle, champion: Bundle | None, gate: Gate, budget: Budget
) -> list[Rule]:
    """Recall floor, worst slice, robustness, calibration, latency, size and memory."""
    figures = _figures(challenger)
    return [
        _recall_floor(challenger, gate),
        _slice(figures, gate),
        _robustness(figures, champion, gate),
        _calibration(figures, gate),
        *_budgets(challenger, figures, gate, budget),
    ]


def judged(
    name: str,
    observed: float | None,
    limit: float | None,
    on_failure: Literal["block", "warn"],
    told: str,
    bound: Bound = "at most",
    unit: str = "",
) -> Rule:
    """The rule that `observed` keeps the limit; `told` says what it is, or why there is none."""
    if limit is None:
        return Rule(name, observed, None, "pass", f"{told}, no limit", on_failure)
    if observed is None:
        reason = f"{name} cannot be judged: {told}"
        return Rule(name, None, limit, "unknown", reason, on_failure)
    holds = observed >= limit - _HAIR if bound == "at least" else observed <= limit + _HAIR
    reason = f"{told}, {bound} {limit:g}{unit}"
    return Rule(name, observed, limit, "pass" if holds else "fail", reason, on_failure)


def _recall_floor(challenger: Bundle, gate: Gate) -> Rule:
    name, limit, on_failure = "recall_floor", gate.min_recall, gate.on_failure.recall_floor
    try:
        recall = recall_of_each(challenger)
    except (DataError, ValueError) as error:
        return judged(name, None, limit, on_failure, f"recall by class is not known ({error})")
    shares = {name: share for name, share in recall.items() if share is not None}
    if len(shares) < len(recall):
        unmeasured = [name for name in recall if name not in shares]
        told = f"no test images of class {listed(unmeasured)}"
        return judged(name, None, limit, on_failure, told)
    order = sorted(shares, key=lambda name: shares[name])
    below = [name for name in order if limit is not None and shares[name] < limit - _HAIR]
    lowest = shares[order[0]]
    told = f"lowest recall {lowest:.3f} ({listed(below or order[:1])})"
    return judged(name, lowest, limit, on_failure, told, "at least")


def _slice(figures: Figures, gate: Gate) -> Rule:
    observed, told = _number(figures, "slices", "worst", "accuracy", "value"), "no slices are known"
    if observed is not None:
        worst = figures["slices"]["worst"]
        named = f"{worst.get('name')} ({worst.get('images')} images)"
        told = f"accuracy of the worst slice, {named}, is {observed:.3f}"
    limit = gate.min_slice_accuracy
    return judged("slice", observed, limit, gate.on_failure.slice, told, "at least")


def _robustness(figures: Figures, champion: Bundle | None, gate: Gate) -> Rule:
    name, limit, effect = "robustness", gate.max_corruption_error_rise, gate.on_failure.robustness
    if champion is None:
        return Rule(name, None, None, "pass", "robustness: there is no champion yet", effect)
    place = ("robustness", "mean_corruption_error", "value")
    old, new = _number(_figures(champion), *place), _number(figures, *place)
    if old is None or new is None:
        whose = "champion" if new is not None else "challenger"
        told = (
            f"the mean corruption error of the {whose} is not known (an older bundle, or "
            "evaluate.robustness is off)"
        )
        return judged(name, None, limit, effect, told)
    told = f"mean corruption error {old:.3f} -> {new:.3f}, a change of {new - old:+.3f}"
    return judged(name, new - old, limit, effect, told)


def _calibration(figures: Figures, gate: Gate) -> Rule:
    observed = _number(figures, "deployed", "calibration_error")
    told = "the calibration error is not known"
    if observed is not None:
        told = f"calibration error {observed:.3f}"
    limit = gate.max_calibration_error
    return judged("calibration", observed, limit, gate.on_failure.calibration, told)


def _budgets(challenger: Bundle, figures: Figures, gate: Gate, budget: Budget) -> list[Rule]:
    measured, memory = challenger.info.measurements, _number(figures, "memory_bytes")
    rows = [
        ("latency", measured.latency_ms, budget.max_latency_ms, "latency_ms", 1.0, " ms"),
        ("size", measured.size_bytes, budget.max_size_mb, "size_bytes", _MEGABYTE, " MB"),
        ("memory", memory, budget.max_memory_mb, "memory_bytes", _MEGABYTE, " MB"),
    ]
    rules = []
    for name, value, limit, key, scale, unit in rows:
        observed = value / scale if value is not None and math.isfinite(value) else None
        told = f"{name} was not measured"
        if observed is not None:
            before = _number(figures, "candidate", key)
            told = f"{name} {observed:.3g}{unit}"
            told += _kept_before(observed, before and before / scale, limit, unit)
        effect = getattr(gate.on_failure, name)
        rules.append(judged(name, observed, limit, effect, told, unit=unit))
    return rules


def _kept_before(observed: float, before: float | None, limit: float | None, unit: str) -> str:
    """Of a limit that the candidate kept and the deployed graph misses, what made it miss."""
    if limit is None or before is None or not before <= limit < observed - _HAIR:
        return ""
    return f" (the candidate's {before:.3g}{unit}, and what was folded into it)"


def _figures(bundle: Bundle) -> Figures:
    try:
        return bundle.metrics() or {}
    except (ValueError, TypeError):  # signed, and still no JSON: what it would say is not known
        return {}


def _number(figures: Figures, *place: str) -> float | None:
    """The finite number at a place in nested mappings, None when there is none."""
    found: Any = figures
    for key in place:
        found = found.get(key) if isinstance(found, Mapping) else None
    real = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if real and math.isfinite(found) else None
