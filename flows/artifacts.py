"""What the Prefect UI shows of a training run: tables, plots and links."""

import csv
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.report import remarks_of, verdict_of
from flows.summary import LoopResult
from tasks.bundle import CARD
from tasks.errors import ServiceError
from tasks.params import load_settings
from tasks.registry.champion_report import FOLDER
from tasks.registry.register import run_page


def publish(result: LoopResult) -> None:
    """Publish metrics, candidates, flags, gate, confusion matrix and links as artifacts."""
    create_table_artifact(_metrics(result), key="metrics", description="Test split")
    create_table_artifact(_candidates(result), key="candidates", description=_chosen(result))
    create_table_artifact(_flags(result), key="cleaning-flags", description=_cleaned(result))
    create_markdown_artifact(_gate(result), key="gate", description="Why (not) promoted")
    create_markdown_artifact(
        _confusion(result.workspace / "data" / "plots" / "confusion.csv"),
        key="confusion-matrix",
        description="Rows: actual class; columns: predicted class",
    )
    run = _run_page(result)
    create_markdown_artifact(_report(result, run), key="report", description="What was shown")
    card = (result.bundle.path / CARD).read_text(encoding="utf-8")
    create_markdown_artifact(without_front_matter(card), key="model-card")
    if run is not None:
        cleaning = f"{run}/artifacts/data/cleaning.html"
        create_link_artifact(cleaning, key="cleaning-report", link_text="The cleaning report")
        create_link_artifact(run, key="mlflow-run", link_text="The run in MLflow")
        create_image_artifact(
            _file_of(run, "compression/pareto.png"), key="pareto", description="Pareto"
        )


def _report(result: LoopResult, run: str | None) -> str:
    """What the report says first, and where it is in MLflow (None: in no run there)."""
    lines = [verdict_of(result.bundle), "", *(f"- {one}" for one in remarks_of(result.bundle)), ""]
    if run is not None:
        page = f"{run}/artifacts/{FOLDER}/{result.pages.report.name}"
        lines.append(f"[The evaluation report]({page})")
    return "\n".join(lines)


def without_front_matter(card: str) -> str:
    """The text of a model card for people, without the YAML for machines."""
    _, _, rest = card.partition("---\n")
    return rest.partition("---\n")[2].lstrip() or card


def _run_page(result: LoopResult) -> str | None:
    """The MLflow page of the training run, if MLflow is there to show it."""
    try:
        return run_page(result.bundle.info.lineage.run_key, load_settings())
    except ServiceError:
        return None


def _metrics(result: LoopResult) -> list[dict[str, object]]:
    measured = result.bundle.info.measurements
    models = (("fp32", "fp32_"), (result.bundle.info.technique, ""))
    rows: list[dict[str, object]] = [
        {
            "model": name,
            "accuracy": f"{getattr(measured, prefix + 'accuracy'):.4f}",
            "interval": f"{getattr(measured, prefix + 'accuracy_low'):.4f} to "
            f"{getattr(measured, prefix + 'accuracy_high'):.4f}",
        }
        for name, prefix in models
    ]
    rows[1] |= {
        "latency_ms": f"{measured.latency_ms:.3f}",
        "size_kB": f"{measured.size_bytes / 1e3:.0f}",
        "agreement with fp32": f"{measured.agreement_with_fp32:.2%}",
    }
    return rows


def _candidates(result: LoopResult) -> list[dict[str, object]]:
    return [
        {
            "name": row["name"],
            "accuracy": f"{row['accuracy']:.4f}",
            "latency_ms": f"{row['latency_ms']:.3f}",
            "size_kB": f"{row['size_bytes'] / 1e3:.0f}",
            "verdict": row["verdict"],
            "reason": row["reason"],
        }
        for row in result.candidates["candidates"]
    ]


def _chosen(result: LoopResult) -> str:
    return f"{result.candidates['chosen']}: {result.candidates['reason']}"


def _flags(result: LoopResult) -> list[dict[str, object]]:
    left_out = result.data["left_out_for"]
    return [
        {"flag": name.replace("_", " "), "images": count, "left out for it": left_out.get(name, 0)}
        for name, count in result.data["flags"].items()
    ]


def _cleaned(result: LoopResult) -> str:
    return f"{result.data['images']} images, {result.data['kept']} kept"


def _gate(result: LoopResult) -> str:
    outcome = result.outcome
    verdict = "promoted" if outcome.promoted else "not promoted"
    lines = [f"**Version {outcome.version}: {verdict}** — {'; '.join(outcome.reasons)}", ""]
    if outcome.decision is not None and outcome.decision.rules:
        lines += [
            "| rule | observed | limit | verdict | effect | reason |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {rule.name} | {_number(rule.observed)} | {_number(rule.limit)} "
            f"| {rule.verdict} | {rule.effect} | {rule.reason} |"
            for rule in outcome.decision.rules
        ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _confusion(path: Path) -> str:
    """The confusion matrix as a Markdown table, from one row (actual, predicted) an image."""
    with open(path, newline="", encoding="utf-8") as stream:
        pairs = Counter((row["actual"], row["predicted"]) for row in csv.DictReader(stream))
    classes = sorted({label for pair in pairs for label in pair})
    header = ["actual \\ predicted", *classes]
    rows = [[actual, *(str(pairs[actual, label]) for label in classes)] for actual in classes]
    table = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _file_of(run_page: str, path: str) -> str:
    """The address at which the MLflow server hands out a run's file."""
    server, run_id = run_page.partition("/#/")[0], run_page.rpartition("/")[2]
    return f"{server}/get-artifact?path={quote(path)}&run_uuid={run_id}"
