"""The gate: may the challenger replace the champion? Pure: bundles and images in, decision out.

Both models see the same frozen test images, each prepared as its own input contract says. A
rule that cannot be evaluated blocks: what nobody measured is not promoted.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.bundle import Bundle
from tasks.evaluation.compare import Comparison, compare
from tasks.pixels import Images
from tasks.schema import Budget, Gate

Verdict = Literal["pass", "fail", "unknown"]
Outcome = Literal["promote", "block", "unchanged"]
Ints = npt.NDArray[np.int64]
_BATCH = 256
_BY_HAND = "by hand"
_SHOWN = 5  # classes named in a reason


@dataclass(frozen=True)
class Rule:
    """One rule: what was observed, what was allowed, and what follows."""

    name: str
    observed: float | None
    limit: float | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Decision:
    """The gate's answer with every rule behind it.

    `champion` is the digest of the bundle that was compared with (None: there was none):
    the promotion holds only while that bundle is still the champion.
    """

    outcome: Outcome
    rules: tuple[Rule, ...]
    challenger: str
    champion: str | None

    @property
    def promote(self) -> bool:
        """Whether the challenger may become the champion."""
        return self.outcome == "promote"

    @property
    def manual(self) -> bool:
        """Whether a person decided, past the gate."""
        return any(rule.name == _BY_HAND for rule in self.rules)

    @property
    def reason(self) -> str:
        """The decision in a sentence: the rules that block, or what held."""
        if self.outcome == "unchanged":
            return "the bundle is the champion already"
        decisive = [r for r in self.rules if r.verdict != "pass"] or list(self.rules)
        return "; ".join(rule.reason for rule in decisive)

    def blocked(self, rule: Rule) -> "Decision":
        """The same decision with a rule that blocks it."""
        return replace(self, outcome="block", rules=(*self.rules, rule))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for tags and artifacts."""
        return asdict(self) | {"promote": self.promote, "reason": self.reason}


@dataclass(frozen=True)
class FrozenImages:
    """Frozen test images: labels int64 [N] into `classes`; `images(bundle)` as its input."""

    classes: tuple[str, ...]
    labels: Ints
    images: Callable[[Bundle], Images]


def decide(
    challenger: Bundle, champion: Bundle | None, test: FrozenImages, gate: Gate, budget: Budget
) -> Decision:
    """Weigh the challenger against the champion (None: the first one) on the same images."""
    champion_digest = champion.digest if champion else None
    if challenger.digest == champion_digest:
        return Decision("unchanged", (), challenger.digest, champion_digest)
    rules = [*_quality(challenger, champion, test, gate), *_budgets(challenger, budget)]
    passed = all(rule.verdict == "pass" for rule in rules)
    outcome: Outcome = "promote" if passed else "block"
    return Decision(outcome, tuple(rules), challenger.digest, champion_digest)


def by_hand(challenger: Bundle, champion: Bundle | None, who: str, why: str) -> Decision:
    """A promotion that a person decided, past the gate; it is recorded as such."""
    rule = Rule(_BY_HAND, None, None, "pass", f"{who} decided: {why}")
    return Decision("promote", (rule,), challenger.digest, champion.digest if champion else None)


def _quality(
    challenger: Bundle, champion: Bundle | None, test: FrozenImages, gate: Gate
) -> list[Rule]:
    if champion is None:
        return [Rule("champion", None, None, "pass", "there is no champion yet")]
    classes = _classes(challenger, champion)
    if classes.verdict != "pass":
        return [classes, *_unknown("the two models do not know the same classes")]
    try:
        comparison = _compare(challenger, champion, test, gate)
    except Exception as error:  # whatever hinders the comparison must block, and be told
        return [classes, *_unknown(f"{type(error).__name__}: {error}")]
    return [
        classes,
        _accuracy(comparison, gate),
        _recall(comparison, champion.info.classes, gate),
    ]


def _compare(challenger: Bundle, champion: Bundle, test: FrozenImages, gate: Gate) -> Comparison:
    """Compare on the test images whose class the champion knows; a new class may be predicted."""
    known = champion.info.classes
    classes = [*known, *sorted(set(challenger.info.classes) - set(known))]
    names = np.array(test.classes, object)[test.labels]
    shared = np.isin(names, known)
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[name] for name in names[shared]], np.int64)
    old = _predict(champion, test, index)[shared]
    new = _predict(challenger, test, index)[shared]
    return compare(old, new, labels, classes, gate)


def _predict(bundle: Bundle, test: FrozenImages, index: dict[str, int]) -> Ints:
    """Predicted classes, int64 [N], in the positions of `index`."""
    images = test.images(bundle)
    if len(images) != len(test.labels):
        raise ValueError(f"{len(images)} images for {len(test.labels)} labels")
    batches = [bundle.predict(images[at : at + _BATCH])[0] for at in range(0, len(images), _BATCH)]
    probabilities = np.concatenate(batches)
    if not np.isfinite(probabilities).all():
        raise ValueError("the model answers with numbers that are not finite")
    positions = np.array([index[name] for name in bundle.info.classes], np.int64)
    predicted: Ints = positions[probabilities.argmax(axis=1)]
    return predicted


def _classes(challenger: Bundle, champion: Bundle) -> Rule:
    old, new = set(champion.info.classes), set(challenger.info.classes)
    if lost := sorted(old - new):
        way_out = "if that is meant: `visionloop promote VERSION --force`"
        reason = f"the challenger no longer knows {_listed(lost)} ({way_out})"
        return Rule("classes", float(len(lost)), 0.0, "fail", reason)
    if added := sorted(new - old):
        reason = f"new classes {_listed(added)}; compared on the images of the known ones"
        return Rule("classes", 0.0, 0.0, "pass", reason)
    return Rule("classes", 0.0, 0.0, "pass", f"both models know the same {len(old)} classes")


def _accuracy(comparison: Comparison, gate: Gate) -> Rule:
    verdict: Verdict = "pass" if comparison.not_worse else "fail"
    reason = (
        f"accuracy {comparison.champion_accuracy:.4f} -> {comparison.challenger_accuracy:.4f} on "
        f"{comparison.images} images; lower bound of the difference {comparison.low:+.4f}, "
        f"allowed {-gate.margin:+.4f} (McNemar's p {comparison.p_value:.2g})"
    )
    return Rule("accuracy", comparison.low, -gate.margin, verdict, reason)


def _recall(comparison: Comparison, known: list[str], gate: Gate) -> Rule:
    limit = -gate.max_recall_drop
    unmeasured = [name for name in known if comparison.recall_change[name] is None]
    if unmeasured:
        reason = f"no test images of class {_listed(unmeasured)}"
        return Rule("recall", None, limit, "unknown", reason)
    changes = {n: c for n, c in comparison.recall_change.items() if c is not None}
    worst = min(changes, key=lambda name: changes[name])
    verdict: Verdict = "fail" if comparison.dropped_classes else "pass"
    shown = comparison.dropped_classes or (worst,)
    reason = f"recall of {_listed(shown)} changes by {changes[worst]:+.3f}, allowed {limit:+.3f}"
    return Rule("recall", changes[worst], limit, verdict, reason)


def _budgets(challenger: Bundle, budget: Budget) -> list[Rule]:
    measured = challenger.info.measurements
    return [
        _within("latency", measured.latency_ms, budget.max_latency_ms, "ms"),
        _within("size", measured.size_bytes / 1e6, budget.max_size_mb, "MB"),
    ]


def _within(name: str, observed: float, limit: float | None, unit: str) -> Rule:
    if limit is None:
        return Rule(name, observed, None, "pass", f"{name} {observed:.3g} {unit}, no limit set")
    if not np.isfinite(observed):
        return Rule(name, None, limit, "unknown", f"{name} was not measured")
    verdict: Verdict = "pass" if observed <= limit else "fail"
    reason = f"{name} {observed:.3g} {unit}, allowed {limit:.3g} {unit}"
    return Rule(name, observed, limit, verdict, reason)


def _unknown(why: str) -> list[Rule]:
    return [
        Rule(name, None, None, "unknown", f"{name} cannot be compared: {why}")
        for name in ("accuracy", "recall")
    ]


def _listed(names: "list[str] | tuple[str, ...]") -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + rest
