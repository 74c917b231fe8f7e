"""What the gate says: rules with what was observed and allowed, and the decision they come to."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tasks.bundle import Bundle

Verdict = Literal["pass", "fail", "unknown"]
Effect = Literal["pass", "warn", "block"]
Outcome = Literal["promote", "block", "unchanged"]
BY_HAND, FIRST = "by hand", "champion"
SHOWN = 5  # classes named in a reason


@dataclass(frozen=True)
class Rule:
    """One rule: what was observed, what was allowed, and what follows."""

    name: str
    observed: float | None
    limit: float | None
    """None: there is none; what was observed is only told."""
    verdict: Verdict
    reason: str
    on_failure: Literal["block", "warn"] = "block"

    @property
    def effect(self) -> Effect:
        """What the rule comes to: a rule that cannot be evaluated is one that fails."""
        return "pass" if self.verdict == "pass" else self.on_failure

    @property
    def decides(self) -> bool:
        """Whether the decision rests on it: what has no limit is only told."""
        return self.limit is not None or self.name in (BY_HAND, FIRST)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"effect": self.effect}


@dataclass(frozen=True)
class Looks:
    """How often a set of test images was used for a decision."""

    test_set: str
    """SHA-256 that stands for the images and their labels."""
    images: int
    number: int
    """Decisions up to and with this one; without it where `counted` is false."""
    counted: bool


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
    looks: Looks | None = None
    params: dict[str, Any] | None = None
    """The gate's and the budget's parameters in force; None of a decision by hand."""

    @property
    def promote(self) -> bool:
        """Whether the challenger may become the champion."""
        return self.outcome == "promote"

    @property
    def manual(self) -> bool:
        """Whether a person decided, past the gate."""
        return any(rule.name == BY_HAND for rule in self.rules)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The reasons of the rules that failed and do not block."""
        return tuple(rule.reason for rule in self.rules if rule.effect == "warn")

    @property
    def reason(self) -> str:
        """The decision in a sentence: the rules that block, or what held; then the warnings."""
        if self.outcome == "unchanged":
            return "the bundle is the champion already"
        blocking = [rule.reason for rule in self.rules if rule.effect == "block"]
        held = [rule.reason for rule in self.rules if rule.effect == "pass" and rule.decides]
        return "; ".join([*(blocking or held), *(f"warning: {text}" for text in self.warnings)])

    def blocked(self, rule: Rule) -> "Decision":
        """The same decision with a rule that blocks it."""
        return replace(self, outcome="block", rules=(*self.rules, rule))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for tags, artifacts and the signed document."""
        return asdict(self) | {
            "rules": [rule.as_dict() for rule in self.rules],
            "promote": self.promote,
            "reason": self.reason,
        }


def by_hand(challenger: Bundle, champion: Bundle | None, who: str, why: str) -> Decision:
    """A promotion that a person decided, past the gate; it is recorded as such."""
    rule = Rule(BY_HAND, None, None, "pass", f"{who} decided: {why}")
    return Decision("promote", (rule,), challenger.digest, champion.digest if champion else None)


def listed(names: "list[str] | tuple[str, ...]") -> str:
    """Names in a sentence, not more than a reader takes in."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + rest
