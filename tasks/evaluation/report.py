"""report.html: the whole evidence as one page that asks the network for nothing."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tasks.bundle import BundleInfo
from tasks.evaluation import champion_part
from tasks.evaluation.calibration import TITLES
from tasks.evaluation.corruptions.names import SEVERITIES
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.explanation.figures import ALIKE
from tasks.evaluation.plots import reliability_chart, risk_coverage_chart
from tasks.evaluation.tables import (
    ClassRow,
    class_rows,
    compared,
    confused_pairs,
    of_all_probabilities,
    remarks,
    shown_classes,
    verdict,
)
from tasks.evaluation.training_cost import COST, read_cost
from tasks.pages.charts import Series, chart
from tasks.pages.render import TINY, data_uri, template
from tasks.schema import Evaluate

# What follows the verdict: a file report_NAME.html.j2, its title in the contents. A section that
# is named as a part of the evidence (`Parts`) is there only when that part was measured.
SECTIONS = {
    "champion": "Champion",
    "fp32": "fp32",
    "curves": "Training",
    "confusion": "Confusions",
    "classes": "Classes",
    "robustness": "Robustness",
    "adversarial": "Attacks",
    "ood": "Strange images",
    "calibration": "Calibration",
    "answers": "Abstention",
    "slices": "Slices",
    "explanation": "Explanation",
    "mistakes": "Mistakes",
    "candidates": "Candidates",
    "data": "Data",
    "lineage": "Lineage",
    "reproduce": "Do it again",
}

_READABLE, _HARDEST = 60, 30  # classes that are all shown, and how many where there are more


@dataclass(frozen=True)
class Mistake:
    """An image the deployed model gets wrong, as a data URI, and what it said."""

    source: str
    path: str
    actual: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Sources:
    """Files of earlier steps that the report shows when they are there."""

    curves: Path = Path("data/plots/curves.csv")
    cleaning: Path = Path("data/metrics/clean.json")
    cost: Path = COST


def render_report(
    evidence: Evidence, info: BundleInfo, params: Evaluate, sources: Sources | None = None
) -> str:
    """The page, with up to `params.worst_mistakes` mistakes, most confident first."""
    sources = sources or Sources()
    deployed, fp32, candidates = evidence.deployed, evidence.fp32, evidence.candidates
    cleaning = _cleaning(sources.cleaning)
    return str(
        template("report.html.j2", Path(__file__).parent).render(
            sections=[
                (name, title)
                for name, title in SECTIONS.items()
                if getattr(evidence.parts, name, True) is not None
            ],
            champion_part=champion_part,
            info=info,
            deployed=deployed,
            fp32=fp32,
            candidates=candidates,
            deployed_cost=evidence.cost,
            chosen=candidates.named(candidates.chosen),
            fp32_candidate=candidates.named(candidates.fp32),
            shards=evidence.shards,
            n_images=len(deployed.labels),
            level=f"{100 * params.confidence:g} %",
            verdict=verdict(evidence, info),
            overall=compared(evidence),
            ranked=[of_all_probabilities(deployed), of_all_probabilities(fp32)],
            rows=(rows := class_rows(evidence, info.classes)),
            hardest=hardest_classes(rows),
            remarks=remarks(evidence, info.classes),
            confusion=shown_classes(deployed.confusion, info.classes),
            pairs=confused_pairs(deployed.confusion, info.classes),
            reliability=reliability_chart(deployed.before, deployed.after),
            curves=_curve_charts(sources.curves),
            pareto=_pareto_chart(evidence),
            mistakes=worst_mistakes(evidence, params.worst_mistakes),
            n_mistakes=int((~deployed.correct).sum()),
            tiny=info.input.size <= TINY,
            counts=_split_counts(evidence),
            parts=evidence.parts,
            alike=ALIKE,
            severities=SEVERITIES,
            calibration_titles=TITLES,
            decided=evidence.decided,
            risk_coverage=risk_coverage_chart(evidence.decided),
            cost=read_cost(sources.cost),
            cleaning=cleaning,
            cleaned_for=", ".join(
                f"{name.replace('_', ' ')} {count}"
                for name, count in cleaning.get("flags", {}).items()
                if count
            ),
        )
    )


def worst_mistakes(evidence: Evidence, worst: int) -> list[Mistake]:
    """The most confident mistakes on the test split, at most `worst`."""
    deployed, split = evidence.deployed, evidence.shards.split("test")
    confidence = deployed.probabilities.max(1)
    wrong = np.flatnonzero(~deployed.correct)
    ranked = wrong[np.argsort(-confidence[wrong], kind="stable")][:worst]
    return [
        Mistake(
            source=data_uri(split.images[i]),
            path=split.paths[i],
            actual=evidence.shards.classes[deployed.labels[i]],
            predicted=evidence.shards.classes[deployed.predicted[i]],
            confidence=float(confidence[i]),
        )
        for i in ranked
    ]


def hardest_classes(rows: list[ClassRow]) -> list[ClassRow]:
    """Of many classes those with the lowest recall, lowest first; [] where all can be read."""
    found = [(row.recall.value, row) for row in rows if row.recall.value is not None]
    few = len(rows) <= _READABLE
    return [] if few else [row for _, row in sorted(found, key=lambda pair: pair[0])[:_HARDEST]]


def _curve_charts(path: Path) -> list[Markup]:
    """Loss and accuracy by epoch, from the training step's curves.csv; [] without it."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))

    def series(name: str, column: str, style: str) -> Series:
        known = [row for row in rows if row.get(column)]
        x = [float(row["epoch"]) for row in known]
        return Series(name, x, [float(row[column]) for row in known], style)

    losses = [
        series("training", "train_loss", "s2"), series("validation", "validation_loss", "s1")
    ]  # fmt: skip
    accuracy = [series("validation", "validation_accuracy", "s1")]
    return [
        chart("Loss", "epoch", "loss", losses),
        chart("Validation accuracy", "epoch", "accuracy", accuracy, shares=True),
    ]


def _pareto_chart(evidence: Evidence) -> Markup:
    chosen = evidence.candidates.chosen
    parts = [
        Series(
            label,
            [candidate.latency_ms for candidate in group],
            [candidate.accuracy for candidate in group],
            style,
            line=False,
            labels=[candidate.name for candidate in group],
        )
        for label, style, group in (
            ("chosen", "s1", [c for c in evidence.candidates.candidates if c.name == chosen]),
            ("other", "s3", [c for c in evidence.candidates.candidates if c.name != chosen]),
        )
        if group
    ]
    return chart("Candidates", "latency at batch 1, ms", "validation accuracy", parts, shares=True)


def _split_counts(evidence: Evidence) -> list[tuple[str, list[int]]]:
    """Per class the images in train, validation and test; the sum comes last."""
    classes = evidence.shards.classes
    columns = [
        np.bincount(evidence.shards.split(name).labels, minlength=len(classes))
        for name in ("train", "validation", "test")
    ]
    table = np.stack(columns, axis=1)
    rows = [(name, row.tolist()) for name, row in zip(classes, table, strict=True)]
    return [*rows, ("all", table.sum(0).tolist())]


def _cleaning(path: Path) -> dict[str, Any]:
    """The counts of the cleaning step; {} when it left none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
