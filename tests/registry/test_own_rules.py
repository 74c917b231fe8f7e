"""Each rule on the bundles' own figures: passes, warns, blocks, and what it says of no figure."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.bundle import METRICS, REFERENCE, Bundle, open_bundle
from tasks.params import Settings, load_params
from tasks.registry.decision import Decision, Rule
from tasks.registry.gate import decide
from tasks.signing import sign_directory

PARAMS = load_params()
RISE = {"mean_corruption_error": {"value": 0.3}}
SLICES = {"worst": {"name": "dark images", "images": 31, "accuracy": {"value": 0.71}}}
# rule: (section, key of its limit, a limit that holds, one that does not)
LIMITS = {
    "recall_floor": ("gate", "min_recall", 0.5, 0.99),
    "slice": ("gate", "min_slice_accuracy", 0.71, 0.72),
    "robustness": ("gate", "max_corruption_error_rise", 0.1, 0.09),
    "calibration": ("gate", "max_calibration_error", 0.02, 0.01),
    "latency": ("budget", "max_latency_ms", 0.1, 0.09),
    "size": ("budget", "max_size_mb", 0.003, 0.002),
    "memory": ("budget", "max_memory_mb", 60.0, 59.0),
}
MEASURED = [name for name in LIMITS if name not in ("latency", "size")]  # not always, that is


@pytest.fixture
def pair(make_bundle: Callable[..., Bundle]) -> tuple[Bundle, Bundle]:
    """Challenger and champion, with every figure a rule asks for."""
    old = {"robustness": {"mean_corruption_error": {"value": 0.2}}}
    new = {"robustness": RISE, "slices": SLICES}
    return make_bundle(0.12, "new", more=new), make_bundle(0.1, "old", more=old)


def _decide(pair: tuple[Bundle, Bundle], rule: str, limit: float | None, effect: str) -> Decision:
    """By answers alone; every limit is off but that of one rule."""
    off = {key: None for section, key, *_ in LIMITS.values() if section == "gate"}
    section, key, *_ = LIMITS[rule]
    effects = PARAMS.gate.on_failure.model_copy(update={rule: effect})
    gate = PARAMS.gate.model_copy(update={**off, "on_failure": effects})
    budget = PARAMS.budget
    if section == "gate":
        gate = gate.model_copy(update={key: limit})
    else:
        budget = budget.model_copy(update={key: limit})
    return decide(*pair, None, gate, budget)


def _rule(decision: Decision, name: str) -> Rule:
    return next(rule for rule in decision.rules if rule.name == name)


@pytest.mark.parametrize("name", LIMITS)
def test_within_the_limit_it_passes_and_past_it_blocks_or_warns(
    pair: tuple[Bundle, Bundle], name: str
) -> None:
    *_, holds, fails = LIMITS[name]
    decision = _decide(pair, name, holds, "block")
    assert (decision.outcome, _rule(decision, name).verdict) == ("promote", "pass")
    assert _rule(decision, name).limit == holds

    decision = _decide(pair, name, fails, "block")
    assert (decision.outcome, _rule(decision, name).effect) == ("block", "block")
    assert f"{fails:g}" in decision.reason

    decision = _decide(pair, name, fails, "warn")
    rule = _rule(decision, name)
    assert (decision.outcome, rule.verdict, rule.effect) == ("promote", "fail", "warn")
    assert decision.warnings == (rule.reason,)
    assert f"warning: {rule.reason}" in decision.reason


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_not_known_blocks_where_there_is_a_limit_and_only_there(
    pair: tuple[Bundle, Bundle], settings: Settings, name: str
) -> None:
    """A bundle from before there were figures and pixel hashes."""
    for file in (METRICS, REFERENCE):
        (pair[0].path / file).unlink()
    np.savez(pair[0].path / REFERENCE, labels=np.zeros(3, int), probabilities=np.eye(10)[:3])
    sign_directory(pair[0].path, settings)
    older = open_bundle(pair[0].path, settings), pair[1]
    limit = LIMITS[name][2]

    rule = _rule(_decide(older, name, limit, "block"), name)
    assert (rule.verdict, rule.effect, rule.observed) == ("unknown", "block", None)
    assert "not" in rule.reason or "no " in rule.reason
    assert _rule(_decide(older, name, limit, "warn"), name).effect == "warn"
    unlimited = _rule(_decide(older, name, None, "block"), name)
    assert (unlimited.verdict, unlimited.limit) == ("pass", None)


def test_the_lowest_recall_and_its_class_are_named_as_numpy_finds_them(
    pair: tuple[Bundle, Bundle], digit_labels: np.ndarray
) -> None:
    said = pair[0].reference()["probabilities"].argmax(1)
    recall = [float((said == n)[digit_labels[1200:] == n].mean()) for n in range(10)]
    rule = _rule(_decide(pair, "recall_floor", 0.5, "block"), "recall_floor")
    assert rule.observed == pytest.approx(min(recall))
    assert f"'{int(np.argmin(recall))}'" in rule.reason


def test_the_worst_slice_is_named_with_its_images(pair: tuple[Bundle, Bundle]) -> None:
    rule = _rule(_decide(pair, "slice", 0.9, "block"), "slice")
    assert "dark images (31 images), is 0.710, at least 0.9" in rule.reason


def test_robustness_turned_off_cannot_be_judged(make_bundle: Callable[..., Bundle]) -> None:
    new = make_bundle(0.12, "new", more={"robustness": None})
    old = make_bundle(0.1, "old", more={"robustness": RISE})
    assert _rule(_decide((new, old), "robustness", 0.1, "block"), "robustness").verdict == "unknown"
    assert "of the challenger" in _decide((new, old), "robustness", 0.1, "block").reason
    assert "of the champion" in _decide((old, new), "robustness", 0.1, "block").reason


def test_the_first_version_has_no_champion_to_be_less_robust_than(
    make_bundle: Callable[..., Bundle],
) -> None:
    decision = decide(make_bundle(), None, None, PARAMS.gate, PARAMS.budget)
    assert decision.outcome == "promote"
    assert _rule(decision, "robustness").verdict == "pass"


def test_figures_that_are_no_numbers_are_not_known(make_bundle: Callable[..., Bundle]) -> None:
    odd = {"deployed": {"calibration_error": "low"}, "slices": [1], "memory_bytes": True}
    both = make_bundle(0.12, "new", more=odd), make_bundle(0.1, "old")
    for name in ("calibration", "slice", "memory"):
        decision = _decide(both, name, LIMITS[name][2], "block")
        assert _rule(decision, name).verdict == "unknown", name
