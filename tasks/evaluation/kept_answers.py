"""What the figures come from, every answer and every slice, as files of the training run."""

from pathlib import Path

import numpy as np

from tasks.evaluation.attacked import ATTACKS, Attacked
from tasks.evaluation.corruptions.names import ALL, SEVERITIES
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.robustness import SHIFTS, Corrupted
from tasks.evaluation.slices_table import write_slices


def write_answers(folder: Path, evidence: Evidence) -> list[Path]:
    """Write predictions.parquet, and a file for each part that has one; gives their paths."""
    written = [folder / "predictions.parquet"]
    write_predictions(written[0], evidence)
    if evidence.parts.robustness:
        written.append(folder / "corrupted.parquet")
        write_corrupted(written[-1], evidence, evidence.parts.robustness.found)
        written.append(folder / "shifted.parquet")
        write_shifted(written[-1], evidence, evidence.parts.robustness.found)
    if evidence.parts.slices:
        written.append(folder / "slices.csv")
        write_slices(written[-1], evidence.parts.slices)
    if evidence.parts.adversarial:
        written.append(folder / "attacked.parquet")
        write_attacked(written[-1], evidence, evidence.parts.adversarial.found)
    return written


def write_predictions(path: Path, evidence: Evidence) -> None:
    """Every test image: path, label, what both models say, and how strange it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(evidence.shards.classes)
    deployed, fp32 = evidence.deployed, evidence.fp32
    columns = {
        "path": pa.array(evidence.shards.split("test").paths),
        "label": names.take(pa.array(deployed.labels)),
        "predicted": names.take(pa.array(deployed.predicted)),
        "probabilities": pa.array(list(deployed.probabilities.astype(np.float32))),
        "fp32_predicted": names.take(pa.array(fp32.predicted)),
        "fp32_probabilities": pa.array(list(fp32.probabilities.astype(np.float32))),
    }
    if evidence.parts.ood:
        columns["ood_score"] = pa.array(evidence.parts.ood.found.test)
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_corrupted(path: Path, evidence: Evidence, found: Corrupted) -> None:
    """Every corrupted image: path, label, corruption, severity, and what both models say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(evidence.shards.classes)
    paths = [evidence.shards.split("test").paths[row] for row in found.rows]
    shape = (len(ALL), len(SEVERITIES), len(found.rows))
    which, severity, image = (index.ravel() for index in np.indices(shape))
    columns = {
        "path": pa.array(paths).take(pa.array(image)),
        "label": names.take(pa.array(found.labels[image])),
        "corruption": pa.array(ALL).take(pa.array(which)),
        "severity": pa.array(np.array(SEVERITIES, np.int8)[severity]),
        "predicted": names.take(pa.array(found.predicted[evidence.deployed.name].ravel())),
        "fp32_predicted": names.take(pa.array(found.predicted[evidence.fp32.name].ravel())),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_shifted(path: Path, evidence: Evidence, found: Corrupted) -> None:
    """Every shifted image, and first as it is: path, label, pixels down and right, both models."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(evidence.shards.classes)
    paths = [evidence.shards.split("test").paths[row] for row in found.rows]
    places = np.array(((0, 0), *SHIFTS), np.int8)
    place, image = (index.ravel() for index in np.indices((len(places), len(found.rows))))
    deployed, fp32 = (
        np.vstack([found.clean[model], found.shifted[model]])
        for model in (evidence.deployed.name, evidence.fp32.name)
    )
    columns = {
        "path": pa.array(paths).take(pa.array(image)),
        "label": names.take(pa.array(found.labels[image])),
        "down": pa.array(places[place, 0]),
        "right": pa.array(places[place, 1]),
        "predicted": names.take(pa.array(deployed.ravel())),
        "fp32_predicted": names.take(pa.array(fp32.ravel())),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_attacked(path: Path, evidence: Evidence, found: Attacked) -> None:
    """Every attacked image: path, label, attack, levels of 255, and what both models say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(evidence.shards.classes)
    paths = [evidence.shards.split("test").paths[row] for row in found.rows]
    attack, level, image = (
        index.ravel() for index in np.indices((len(ATTACKS), len(found.levels), len(found.rows)))
    )
    deployed = np.stack([found.deployed[name] for name in ATTACKS])
    fp32 = np.stack([found.fp32[name] for name in ATTACKS])
    columns = {
        "path": pa.array(paths).take(pa.array(image)),
        "label": names.take(pa.array(found.labels[image])),
        "attack": pa.array(ATTACKS).take(pa.array(attack)),
        "levels": pa.array(np.array(found.levels, np.int16)[level]),
        "predicted": names.take(pa.array(deployed.ravel())),
        "fp32_predicted": names.take(pa.array(fp32.ravel())),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")
