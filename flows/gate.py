"""`visionloop gate`: the gate's rules asked again, of bundles alone; it promotes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.bundle import BUILT, named_bundle
from tasks.bundle import Bundle, open_bundle
from tasks.data.shards import INDEX, SHARDS
from tasks.errors import BundleError
from tasks.params import Settings, load_params, load_settings
from tasks.registry.decision import Decision, Rule
from tasks.registry.document import kept_decision
from tasks.registry.frozen import frozen_images
from tasks.registry.gate import decide
from tasks.registry.looks import past_looks
from tasks.releases import current, find

_EFFECTS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "block": "[red]block[/]"}


@dataclass(frozen=True)
class Evaluated:
    """What the gate says now, of which bundles, and what it said when it counted."""

    bundle: Bundle
    champion: Bundle | None
    images: str
    """Where the answers come from that are compared."""
    decision: Decision
    recorded: Mapping[str, Any] | None
    """The signed decision in the bundle; None without one."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {
            "bundle": str(self.bundle.path),
            "champion_bundle": None if self.champion is None else str(self.champion.path),
            "images": self.images,
            **self.decision.as_dict(),
            "recorded": self.recorded,
        }


def evaluate(name: str | None, against: str | None) -> Evaluated:
    """Ask the gate about a named bundle, data/bundle when there is no name.

    Nothing is promoted or counted, and nothing written but a bundle that is kept in MLflow alone.
    Raises what `named_bundle` does, and DataError for damaged shards.
    """
    params, settings = load_params(), load_settings()
    bundle = named_bundle(name, settings) if name else open_bundle(BUILT, settings)
    champion, recorded = _champion(bundle, against, settings)
    at_hand = (SHARDS / INDEX).is_file()
    test = frozen_images(params) if at_hand else None
    looks = past_looks(bundle, test, settings)
    return Evaluated(
        bundle=bundle,
        champion=champion,
        images=f"the test images in {SHARDS}" if at_hand else "the answers in the bundles",
        decision=decide(bundle, champion, test, params.gate, params.budget, looks),
        recorded=recorded,
    )


def _champion(
    bundle: Bundle, against: str | None, settings: Settings
) -> tuple[Bundle | None, Mapping[str, Any] | None]:
    """The champion to compare with, and the decision recorded in the bundle or its release."""
    recorded = kept_decision(bundle, settings)
    if against is not None:
        return named_bundle(against, settings), recorded
    release = current(settings)
    if release is None:
        return None, recorded
    champion = open_bundle(release.path, settings)
    if champion.digest == bundle.digest:
        recorded = recorded or kept_decision(champion, settings)
        if recorded is not None:
            return _replaced(champion, recorded["champion"], settings), recorded
    return champion, recorded


def _replaced(champion: Bundle, digest: str | None, settings: Settings) -> Bundle | None:
    """The champion that this one was compared with when it came; None of the first."""
    if digest is None:
        return None
    release = find(digest, settings)
    if release is None:
        raise BundleError(
            f"{champion.path} is in production; the champion it was compared with, "
            f"{digest[:12]}, is no longer in {settings.releases}: name one with --champion"
        )
    return open_bundle(release.path, settings)


def show(found: Evaluated, console: Console) -> None:
    """Print every rule, then what they come to."""
    decision = found.decision
    against = "none" if found.champion is None else str(found.champion.path)
    head = f"bundle {found.bundle.path}, champion {against}; by {found.images}"
    console.print(escape(head), soft_wrap=True)
    if decision.rules:
        console.print(_table(decision.rules))
    verdict = {"promote": "[green]promote[/]", "block": "[red]block[/]"}.get(
        decision.outcome, decision.outcome
    )
    reasons = escape(decision.reason).replace("; ", "\n  ")
    console.print(f"[bold]{verdict}[/]: {reasons}", soft_wrap=True)
    if found.recorded is not None:
        console.print(escape(_recorded(found.recorded)), soft_wrap=True)


def _table(rules: tuple[Rule, ...]) -> Table:
    table = Table("rule", "observed", "limit", "verdict", "effect")
    for rule in rules:
        verdict = rule.verdict if rule.decides else "no limit"
        row = (rule.name, _number(rule.observed), _number(rule.limit), verdict)
        table.add_row(*row, _EFFECTS[rule.effect])
    return table


def _recorded(recorded: Mapping[str, Any]) -> str:
    looks = recorded.get("looks") or {}
    number = f", decision {looks['number']} on its test images" if looks.get("counted") else ""
    return (
        f"recorded in the bundle: {recorded['outcome']}, {recorded['time']} by "
        f"{recorded['who']}{number}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
