"""The step `evaluate`: shards, candidates, model → data/bundle, metrics and plots.

Measures fp32 and the chosen candidate on the frozen test split, calibrates the chosen one and
writes it with its evidence as the signed release bundle. The same inputs give the same bytes: what
the graph costs is measured once and kept.
"""

import csv
import json
import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tasks.bundle import (
    CARD,
    METRICS,
    MODEL,
    REFERENCE,
    REPORT,
    SCHEMA_VERSION,
    BundleInfo,
    Measurements,
    Runtime,
    write_bundle,
)
from tasks.data.shards import open_shards
from tasks.errors import TrainingError
from tasks.evaluation.candidates import read_candidates
from tasks.evaluation.card import render_card
from tasks.evaluation.evidence import Evidence, Measured, gather_evidence
from tasks.evaluation.kept_answers import write_answers
from tasks.evaluation.lineage import read_lineage
from tasks.evaluation.report import render_report
from tasks.evaluation.tables import class_rows, known, overall, remarks
from tasks.files import atomic_write, write_json, write_text
from tasks.params import load_params, load_settings
from tasks.runtime import PROVIDERS
from tasks.schema import Params
from tasks.step import run_step
from tasks.tracking import RunLog, open_run

BUNDLE, FIGURES = Path("data/bundle"), Path("data/metrics/evaluate.json")
CLEANING = Path("data/cleaning.html")  # of the step cleaning_report
CONFUSION, CLASSES = Path("data/plots/confusion.csv"), Path("data/plots/classes.csv")
log = logging.getLogger(__name__)


def main() -> None:
    """The step."""
    params, settings = load_params(), load_settings()
    shards, candidates = open_shards(), read_candidates()
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / MODEL
        evidence = gather_evidence(shards, candidates, params, settings, model)
        info = bundle_info(evidence, params)
        for remark in remarks(evidence, info.classes):
            log.warning("%s", remark)

        def fill(directory: Path) -> None:
            shutil.copyfile(model, directory / MODEL)
            fill_bundle(directory, evidence, info, params)

        digest = write_bundle(BUNDLE, info, settings, fill)
        write_tables(evidence, info)
        run = open_run(info.lineage.run_key, "train", settings=settings)
        record(run, evidence, info, digest, Path(scratch))
    accuracy = info.measurements.accuracy
    log.info("%s: test accuracy %.4f, bundle %s", info.technique, accuracy, digest)


def bundle_info(evidence: Evidence, params: Params) -> BundleInfo:
    """bundle.json: what was deployed, how it measured, and where it comes from."""
    chosen = evidence.candidates.named(evidence.candidates.chosen)
    accuracy = overall(evidence.deployed)["accuracy"]
    fp32 = overall(evidence.fp32)["accuracy"]
    return BundleInfo(
        schema_version=SCHEMA_VERSION,
        architecture=_architecture(),
        technique=chosen.technique,
        classes=list(evidence.shards.classes),
        input=evidence.shards.contract,
        runtime=Runtime(
            name=chosen.runtime,
            provider=PROVIDERS[chosen.runtime],
            intra_op_threads=chosen.threads,
        ),
        temperature=evidence.deployed.temperature.value,
        calibration=evidence.deployed.calibration.method,
        ood_score=evidence.parts.ood and evidence.parts.ood.found.chosen.score.name,
        decision=evidence.decided.decision,
        measurements=Measurements(
            accuracy=accuracy.value,
            accuracy_low=accuracy.low,
            accuracy_high=accuracy.high,
            fp32_accuracy=fp32.value,
            fp32_accuracy_low=fp32.low,
            fp32_accuracy_high=fp32.high,
            agreement_with_fp32=evidence.agreement,
            latency_ms=evidence.cost.deployed.median_ms,
            eager_fp32_latency_ms=evidence.cost.eager_ms(evidence.candidates),
            size_bytes=evidence.cost.size_bytes,
        ),
        lineage=read_lineage(params),
    )


def fill_bundle(directory: Path, evidence: Evidence, info: BundleInfo, params: Params) -> None:
    """Write all but the graph and bundle.json into a bundle under construction."""
    with atomic_write(directory / REFERENCE) as stream:
        np.savez_compressed(stream, allow_pickle=False, **evidence.reference)
    write_json(directory / METRICS, metrics(evidence, info))
    write_text(directory / REPORT, render_report(evidence, info, params.evaluate))
    dataset = ", ".join(params.ingest.sources)
    write_text(directory / CARD, render_card(evidence, info, params, dataset))


def metrics(evidence: Evidence, info: BundleInfo) -> dict[str, Any]:
    """data/metrics/evaluate.json: shares in 0..1; null where a score is not defined."""
    difference = dict(zip(("value", "low", "high"), evidence.difference, strict=True))
    models = {"deployed": evidence.deployed, "fp32": evidence.fp32}
    return {
        "model": evidence.deployed.name,
        "test_images": len(evidence.deployed.labels),
        "agreement_with_fp32": evidence.agreement,
        "difference_from_fp32": difference,
        "eager_fp32_latency_ms": info.measurements.eager_fp32_latency_ms,
        "remarks": remarks(evidence, info.classes),
        "decision": evidence.decided.as_metrics(),
        **evidence.cost.as_metrics(evidence.candidates.named(evidence.candidates.chosen)),
        **evidence.parts.as_metrics(),
    } | {role: _figures(measured) for role, measured in models.items()}


def _figures(measured: Measured) -> dict[str, Any]:
    scores = {name: vars(interval) for name, interval in overall(measured).items()}
    return scores | {
        "calibration_error_before": measured.before.error,
        "calibration_error": measured.after.error,
        "nll_before": measured.nll_before,
        "nll": measured.nll_after,
        "brier": measured.ranked.brier,
        "top_k_accuracy": {str(k): share for k, share in measured.ranked.top.items()},
        "macro_roc_auc": known(measured.ranked.macro_roc_auc),
        "macro_average_precision": known(measured.ranked.macro_average_precision),
        "temperature": measured.temperature.value,
        "calibration": measured.calibration.as_metrics(),
    }


def write_tables(evidence: Evidence, info: BundleInfo) -> None:
    """Write the metrics file, the confusion table and the per-class table."""
    write_json(FIGURES, metrics(evidence, info))
    pairs = zip(evidence.deployed.labels, evidence.deployed.predicted, strict=True)
    rows = [[info.classes[actual], info.classes[predicted]] for actual, predicted in pairs]
    _write_csv(CONFUSION, ["actual", "predicted"], rows)
    scores = ("precision", "recall", "f1", "fp32_recall")
    header = ["class", "images", *(f"{s}{end}" for s in scores for end in ("", "_low", "_high"))]
    header += ["roc_auc", "average_precision"]
    table = []
    for row in class_rows(evidence, info.classes):
        numbers = [value for score in scores for value in vars(getattr(row, score)).values()]
        table.append([row.name, row.images, *numbers, row.roc_auc, row.average_precision])
    _write_csv(CLASSES, header, table)


def record(run: RunLog, evidence: Evidence, info: BundleInfo, digest: str, scratch: Path) -> None:
    """Add the evidence to the training run: figures, tables, reports and predictions."""
    values = {
        "test_accuracy": info.measurements.accuracy,
        "test_accuracy_low": info.measurements.accuracy_low,
        "test_accuracy_high": info.measurements.accuracy_high,
        "test_fp32_accuracy": info.measurements.fp32_accuracy,
        "test_agreement_with_fp32": evidence.agreement,
        "test_calibration_error_before": evidence.deployed.before.error,
        "test_calibration_error": evidence.deployed.after.error,
        "temperature": info.temperature,
    }
    named = {
        f"test_{name}": interval.value
        for name, interval in overall(evidence.deployed).items()
        if interval.value is not None
    }
    run.metrics(values | named | evidence.parts.headlines())
    run.tags({"bundle_digest": digest, "technique": info.technique})
    answers = write_answers(scratch, evidence)
    for path in (FIGURES, CONFUSION, CLASSES, BUNDLE / REPORT, BUNDLE / CARD, *answers):
        run.file(path, "evaluation")
    if CLEANING.is_file():
        run.file(CLEANING, "data")


def _architecture() -> str:
    path = Path("data/model/model.json")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["architecture"])
    except (OSError, ValueError, KeyError):
        raise TrainingError(f"{path} names no architecture; run `dvc repro train`") from None


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    run_step(main)
