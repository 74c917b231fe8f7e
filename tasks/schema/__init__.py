"""The schema of conf/params.yaml: one frozen model per section, closed to unknown keys.

Values live in conf/params.yaml only: no scientific value has a default here.
"""

from pydantic import Field

from tasks.schema.data import (
    Clahe,
    Clean,
    CleanPolicy,
    Ingest,
    Normalisation,
    Percentile,
    Prepare,
    Split,
    Unchanged,
    Validate,
    ZScore,
)
from tasks.schema.production import Budget, Drift, Evaluate, Gate, Serve
from tasks.schema.section import Section, Share
from tasks.schema.sources import BoxSource, FolderSource, Source, TableSource, TorchvisionSource
from tasks.schema.training import (
    Activation,
    Architecture,
    Augment,
    Choices,
    Compress,
    Distil,
    Finetune,
    FloatRange,
    IntRange,
    Prune,
    Quantize,
    Range,
    Train,
    Tune,
)

__all__ = [
    "Activation",
    "Architecture",
    "Augment",
    "BoxSource",
    "Budget",
    "Choices",
    "Clahe",
    "Clean",
    "CleanPolicy",
    "Compress",
    "Distil",
    "Drift",
    "Evaluate",
    "Finetune",
    "FloatRange",
    "FolderSource",
    "Gate",
    "Ingest",
    "IntRange",
    "Normalisation",
    "Params",
    "Percentile",
    "Prepare",
    "Prune",
    "Quantize",
    "Range",
    "Section",
    "Serve",
    "Share",
    "Source",
    "Split",
    "TableSource",
    "TorchvisionSource",
    "Train",
    "Tune",
    "Unchanged",
    "Validate",
    "ZScore",
]


class Params(Section):
    """The whole of conf/params.yaml."""

    ingest: Ingest
    clean: Clean
    validate_: Validate = Field(alias="validate")
    split: Split
    prepare: Prepare
    tune: Tune
    train: Train
    compress: Compress
    budget: Budget
    evaluate: Evaluate
    gate: Gate
    serve: Serve
    drift: Drift
