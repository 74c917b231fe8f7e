"""What a run of the loop did, gathered from the files it left: for people, scripts and Prefect."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from tasks.bundle import Bundle, Measurements
from tasks.registry.champion_report import Pages
from tasks.registry.decision import Decision
from tasks.registry.promote import Promotion
from tasks.registry.register import Registered
from tasks.workspace import Workspace

if TYPE_CHECKING:  # SQLAlchemy, which a training run does without
    from tasks.monitoring.check import DriftCheck


@dataclass(frozen=True)
class Outcome:
    """What became of the bundle in the registry; `alias` is None for a superseded version."""

    version: int
    created: bool
    alias: str | None
    promoted: bool
    reasons: tuple[str, ...]
    url: str | None
    decision: Decision | None = None

    @classmethod
    def unchanged(cls, version: int) -> Self:
        """The bundle is the champion and served; nothing was asked of the registry."""
        return cls(version, False, "champion", False, ("the bundle is the champion already",), None)

    @classmethod
    def of(cls, registered: Registered, promotion: Promotion) -> Self:
        """What registering and promoting came to."""
        is_champion = promotion.champion == registered.version
        decision = promotion.decision
        blocked = decision is not None and decision.outcome == "block"
        return cls(
            version=registered.version,
            created=registered.created,
            alias="champion" if is_champion else "challenger" if blocked else None,
            promoted=promotion.changed,
            reasons=tuple(promotion.reason.split("; ")),
            url=registered.url,
            decision=decision,
        )


@dataclass(frozen=True)
class LoopResult:
    """Everything a run of the loop has to tell."""

    workspace: Path
    changed: tuple[str, ...]
    bundle: Bundle
    data: Mapping[str, Any]
    best_trial: Mapping[str, Any]
    candidates: Mapping[str, Any]
    outcome: Outcome
    pages: Pages

    @property
    def cleaning_report(self) -> Path:
        """What cleaning found."""
        return self.workspace / "data" / "cleaning.html"

    def as_json(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {
            "changed": list(self.changed),
            "data": dict(self.data),
            "best_trial": dict(self.best_trial),
            "model": self.bundle.info.model_dump(),
            "registry": {
                "version": self.outcome.version,
                "created": self.outcome.created,
                "alias": self.outcome.alias,
                "promoted": self.outcome.promoted,
                "reasons": list(self.outcome.reasons),
                "url": self.outcome.url,
            },
            "report": str(self.pages.report),
            "signed_report": str(self.pages.signed),
            "comparisons": [str(path) for path in self.pages.comparisons],
            "cleaning_report": str(self.cleaning_report),
        }


def summarise(
    workspace: Workspace, bundle: Bundle, changed: list[str], outcome: Outcome, pages: Pages
) -> LoopResult:
    """Read what the steps wrote under data/; what else there is to tell is given."""
    data = workspace.root / "data"
    counts = _json(data / "metrics" / "clean.json")
    counts["splits"] = _json(data / "shards" / "shards.json")["counts"]
    return LoopResult(
        workspace=workspace.root,
        changed=tuple(changed),
        bundle=bundle,
        data=counts,
        best_trial=_yaml(data / "tune" / "best.yaml"),
        candidates=_json(data / "candidates" / "candidates.json"),
        outcome=outcome,
        pages=pages,
    )


def show(result: LoopResult, console: Console) -> None:
    """Print the one summary of a run."""
    console.print(Panel(_overview(result), title="Visionloop", expand=False))
    console.print(_models(result))
    console.print(_next(result), soft_wrap=True)


def show_drift(check: "DriftCheck", console: Console) -> None:
    """Print a drift check: the decision, then every feature, furthest first."""
    console.print(f"[bold]{check.outcome}[/]: {check.result.summary}")
    if not check.result.features:
        return
    table = Table("feature", "KS distance", "p-value", "drifted")
    for feature in sorted(check.result.features, key=lambda f: -f.distance):
        mark = "[red]yes[/]" if feature.drifted else ""
        table.add_row(feature.name, f"{feature.distance:.3f}", f"{feature.p_value:.2g}", mark)
    console.print(table)
    console.print(f"report: {check.report}")


def _overview(result: LoopResult) -> Table:
    grid = Table.grid(padding=(0, 2))
    splits = ", ".join(f"{name} {count}" for name, count in result.data["splits"].items())
    flags = ", ".join(f"{name} {n}" for name, n in result.data["flags"].items() if n)
    grid.add_row("images", f"{result.data['images']} in, {result.data['kept']} kept")
    grid.add_row("flagged", f"{result.data['flagged']}" + (f" ({flags})" if flags else ""))
    grid.add_row("splits", splits)
    grid.add_row("best trial", _trial(result.best_trial))
    grid.add_row("chosen", f"{result.bundle.info.technique}: {result.candidates['reason']}")
    grid.add_row("registry", _registry(result.outcome))
    for reason in result.outcome.reasons:
        grid.add_row("", f"· {reason}")
    changed = ", ".join(result.changed) or "nothing; every stage is up to date"
    grid.add_row("rebuilt", changed)
    return grid


def _models(result: LoopResult) -> Table:
    measured = result.bundle.info.measurements
    fp32 = _candidate(result, result.candidates["fp32"])
    beside = (result.bundle.metrics() or {}).get("fp32_latency_ms", fp32["latency_ms"])
    table = Table("model", "test accuracy (95 % interval)", "latency, batch 1", "size")
    table.add_row(
        "eager PyTorch fp32",
        _interval(measured, "fp32_"),
        f"{measured.eager_fp32_latency_ms:.3f} ms",
        "",
    )
    table.add_row(
        "fp32 (ONNX)",
        _interval(measured, "fp32_"),
        f"{beside:.3f} ms",
        f"{fp32['size_bytes'] / 1e3:.0f} kB",
    )
    speedup = measured.eager_fp32_latency_ms / measured.latency_ms
    table.add_row(
        f"[bold]{result.bundle.info.technique}[/] (chosen)",
        _interval(measured, ""),
        f"{measured.latency_ms:.3f} ms ({speedup:.1f}x faster than eager)",
        f"{measured.size_bytes / 1e3:.0f} kB",
        end_section=True,
    )
    table.add_row("agreement with fp32", f"{measured.agreement_with_fp32:.2%}", "", "")
    return table


def _next(result: LoopResult) -> str:
    lines = [
        "where to look next:",
        f"  report      {result.pages.report}",
        f"  cleaning    {result.cleaning_report}",
        f"  data docs   {result.workspace / 'data' / 'validation' / 'site' / 'index.html'}",
        "  servers     make up    (Prefect, MLflow, the model server; prints their addresses)",
        "  production  visionloop status",
    ]
    return "\n".join(lines)


def _interval(measured: Measurements, prefix: str) -> str:
    accuracy, low, high = (
        getattr(measured, f"{prefix}accuracy{end}") for end in ("", "_low", "_high")
    )
    return f"{accuracy:.4f} ({low:.4f} to {high:.4f})"


def _trial(best: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in best.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _registry(outcome: Outcome) -> str:
    verb = "promoted" if outcome.promoted else "in place" if not outcome.created else "blocked"
    return f"visionloop version {outcome.version} @{outcome.alias} ({verb})"


def _candidate(result: LoopResult, name: str) -> Mapping[str, Any]:
    rows = result.candidates["candidates"]
    return next(row for row in rows if row["name"] == name)


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _yaml(path: Path) -> dict[str, Any]:
    from tasks.params import read_yaml

    return read_yaml(path)
