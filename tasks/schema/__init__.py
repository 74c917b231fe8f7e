"""The schema of conf/params.yaml: one frozen model per section, closed to unknown keys.

Values live in conf/params.yaml only: no scientific value has a default here.
"""

from pydantic import Field

from tasks.schema.architectures import Activation, Architecture
from tasks.schema.augmentation import PRESETS, Augment, Imbalance, Policy, Recipe
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
from tasks.schema.explanation import Adversarial, Attribution, Explanation
from tasks.schema.ood import OodScore, OutOfDistribution
from tasks.schema.production import (
    ATTRIBUTES,
    Abstention,
    Budget,
    CalibrationMethod,
    Card,
    Drift,
    Evaluate,
    Gate,
    Robustness,
    Serve,
    Slices,
)
from tasks.schema.quantization import Quantize, RangeMethod, Storage
from tasks.schema.section import Section, Share
from tasks.schema.sources import BoxSource, FolderSource, Source, TableSource, TorchvisionSource
from tasks.schema.students import Distil, Prune
from tasks.schema.sweep import Choices, FloatRange, IntRange, Range, Tune, in_order
from tasks.schema.training import (
    Compress,
    CrossValidate,
    Ensemble,
    Finetune,
    Train,
)

__all__ = [
    "ATTRIBUTES",
    "PRESETS",
    "Abstention",
    "Activation",
    "Adversarial",
    "Architecture",
    "Attribution",
    "Augment",
    "BoxSource",
    "Budget",
    "CalibrationMethod",
    "Card",
    "Choices",
    "Clahe",
    "Clean",
    "CleanPolicy",
    "Compress",
    "CrossValidate",
    "Distil",
    "Drift",
    "Ensemble",
    "Evaluate",
    "Explanation",
    "Finetune",
    "FloatRange",
    "FolderSource",
    "Gate",
    "Imbalance",
    "Ingest",
    "IntRange",
    "Normalisation",
    "OodScore",
    "OutOfDistribution",
    "Params",
    "Percentile",
    "Policy",
    "Prepare",
    "Prune",
    "Quantize",
    "Range",
    "RangeMethod",
    "Recipe",
    "Robustness",
    "Section",
    "Serve",
    "Share",
    "Slices",
    "Source",
    "Split",
    "Storage",
    "TableSource",
    "TorchvisionSource",
    "Train",
    "Tune",
    "Unchanged",
    "Validate",
    "ZScore",
    "in_order",
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
    cross_validate: CrossValidate
    ensemble: Ensemble
    compress: Compress
    budget: Budget
    evaluate: Evaluate
    gate: Gate
    serve: Serve
    drift: Drift
