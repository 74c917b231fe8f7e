"""The gate: may the challenger replace the champion? Pure: bundles and images in, decision out.

Both models see the same frozen test images, each prepared as its own input contract says; where
the images are not at hand, the answers that both bundles carry signed are compared. A rule that
cannot be evaluated counts as one that fails: what nobody measured is not promoted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.bundle import Bundle
from tasks.evaluation.compare import Comparison
from tasks.evaluation.two_bundles import Names, compare_answers, compare_stored, predicted_by
from tasks.metrics.classification import Ints
from tasks.pixels import Images
from tasks.registry.decision import FIRST, Decision, Looks, Rule, Verdict, listed
from tasks.registry.own_rules import judged, own_rules
from tasks.schema import Budget, Gate


@dataclass(frozen=True)
class FrozenImages:
    """Frozen test images: labels int64 [N] into `classes`; `images(bundle)` as its input.

    `hashes`, S32 [N], are of their pixels.
    """

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.bytes_]
    images: Callable[[Bundle], Images]

    @property
    def names(self) -> Names:
        """The class of each image by name, object [N]."""
        return np.array(self.classes, object)[self.labels]


def decide(
    challenger: Bundle,
    champion: Bundle | None,
    test: FrozenImages | None,
    gate: Gate,
    budget: Budget,
    looks: Looks | None = None,
) -> Decision:
    """Weigh the challenger against the champion (None: the first one) on the same images.

    Without `test` the answers are compared that the bundles carry.
    """
    champion_digest = champion.digest if champion else None
    if challenger.digest == champion_digest:
        return Decision("unchanged", (), challenger.digest, champion_digest)
    rules = [
        *_against_champion(challenger, champion, test, gate),
        *own_rules(challenger, champion, gate, budget),
        *([] if looks is None else [_looks(looks, gate)]),
    ]
    return Decision(
        outcome="block" if any(rule.effect == "block" for rule in rules) else "promote",
        rules=tuple(rules),
        challenger=challenger.digest,
        champion=champion_digest,
        looks=looks,
        params={"gate": gate.model_dump(), "budget": budget.model_dump()},
    )


def _against_champion(
    challenger: Bundle, champion: Bundle | None, test: FrozenImages | None, gate: Gate
) -> list[Rule]:
    if champion is None:
        return [Rule(FIRST, None, None, "pass", "there is no champion yet")]
    classes = _classes(challenger, champion)
    if classes.verdict != "pass":
        return [classes, *_unknown("the two models do not know the same classes", gate)]
    try:
        comparison = _compare(challenger, champion, test, gate)
    except Exception as error:  # whatever hinders the comparison must block, and be told
        return [classes, *_unknown(f"{type(error).__name__}: {error}", gate)]
    return [
        classes,
        _accuracy(comparison, gate),
        _recall(comparison, champion.info.classes, gate),
    ]


def _compare(
    challenger: Bundle, champion: Bundle, test: FrozenImages | None, gate: Gate
) -> Comparison:
    if test is None:
        return compare_stored(champion, challenger, gate)
    old, new = _predict(champion, test), _predict(challenger, test)
    return compare_answers(champion, challenger, test.names, old, new, gate)


def _predict(bundle: Bundle, test: FrozenImages) -> Ints:
    images = test.images(bundle)
    if len(images) != len(test.labels):
        raise ValueError(f"{len(images)} images for {len(test.labels)} labels")
    return predicted_by(bundle, images)


def _classes(challenger: Bundle, champion: Bundle) -> Rule:
    old, new = set(champion.info.classes), set(challenger.info.classes)
    if lost := sorted(old - new):
        way_out = "if that is meant: `visionloop promote VERSION --force`"
        reason = f"the challenger no longer knows {listed(lost)} ({way_out})"
        return Rule("classes", float(len(lost)), 0.0, "fail", reason)
    if added := sorted(new - old):
        reason = f"new classes {listed(added)}; compared on the images of the known ones"
        return Rule("classes", 0.0, 0.0, "pass", reason)
    return Rule("classes", 0.0, 0.0, "pass", f"both models know the same {len(old)} classes")


def _accuracy(comparison: Comparison, gate: Gate) -> Rule:
    verdict: Verdict = "pass" if comparison.not_worse else "fail"
    reason = (
        f"accuracy {comparison.champion_accuracy:.4f} -> {comparison.challenger_accuracy:.4f} on "
        f"{comparison.images} images; lower bound of the difference {comparison.low:+.4f}, "
        f"allowed {-gate.margin:+.4f} (McNemar's p {comparison.p_value:.2g})"
    )
    effect = gate.on_failure.accuracy
    return Rule("accuracy", comparison.low, -gate.margin, verdict, reason, effect)


def _recall(comparison: Comparison, known: list[str], gate: Gate) -> Rule:
    limit, effect = -gate.max_recall_drop, gate.on_failure.recall
    unmeasured = [name for name in known if comparison.recall_change[name] is None]
    if unmeasured:
        reason = f"no test images of class {listed(unmeasured)}"
        return Rule("recall", None, limit, "unknown", reason, effect)
    changes = {n: c for n, c in comparison.recall_change.items() if c is not None}
    worst = min(changes, key=lambda name: changes[name])
    verdict: Verdict = "fail" if comparison.dropped_classes else "pass"
    shown = comparison.dropped_classes or (worst,)
    reason = f"recall of {listed(shown)} changes by {changes[worst]:+.3f}, allowed {limit:+.3f}"
    return Rule("recall", changes[worst], limit, verdict, reason, effect)


def _looks(looks: Looks, gate: Gate) -> Rule:
    plural = "" if looks.number == 1 else "s"
    so_far = f"{looks.number} decision{plural} so far"
    number = f"decision {looks.number}" if looks.counted else so_far
    told = f"{number} on these {looks.images} test images or most of them"
    return judged("looks", float(looks.number), gate.max_looks, gate.on_failure.looks, told)


def _unknown(why: str, gate: Gate) -> list[Rule]:
    return [
        Rule(name, None, limit, "unknown", f"{name} cannot be compared: {why}", effect)
        for name, limit, effect in (
            ("accuracy", -gate.margin, gate.on_failure.accuracy),
            ("recall", -gate.max_recall_drop, gate.on_failure.recall),
        )
    ]
