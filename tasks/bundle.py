"""The release bundle: one signed directory, the only thing that leaves training.

model.onnx      in: "images" uint8 N×S×S×3; out: "probabilities" float32 N×C (calibrated),
                "embedding" float32 N×D; "ood_score" float32 [N], where `ood_score` names one
bundle.json     `BundleInfo`: classes, input contract, runtime, measurements, lineage
reference.npz   probabilities, embedding, statistics, labels, pixel hashes of held-out images:
                what drift is measured against
metrics.json    every figure of the report (bundles from before there was one lack it)
report.html, MODEL_CARD.md, SHA256SUMS, SHA256SUMS.sig
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.decision import Decision
from tasks.errors import BundleError
from tasks.external_data import refuse_external_data
from tasks.files import write_directory, write_json
from tasks.params import Settings
from tasks.pixels import Colour, Pixels, Resize, fit, read
from tasks.runtime import TITLES, Floats, Run, RuntimeName, missing, open_model
from tasks.schema import CalibrationMethod, Normalisation, OodScore, Unchanged
from tasks.signing import sign_directory, verify_directory

SCHEMA_VERSION = 1
MODEL, INFO, REFERENCE = "model.onnx", "bundle.json", "reference.npz"
REPORT, CARD, METRICS = "report.html", "MODEL_CARD.md", "metrics.json"
PROBABILITIES, EMBEDDING, OOD_SCORE = "probabilities", "embedding", "ood_score"
FILES = (MODEL, INFO, REFERENCE, REPORT, CARD, METRICS)

log = logging.getLogger(__name__)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputContract(_Frozen):
    """How a file becomes the graph's input; see tasks/pixels.py.

    The keys with a default came later: without them a contract means what it always meant.
    """

    size: int
    resize: Resize
    max_pixels: int
    margin: int = 0
    colour: Colour = "rgb"
    normalise: Normalisation = Unchanged(method="none")

    def fit(self, image: Pixels) -> Pixels:
        """A decoded image, uint8 H×W×3, as the graph's input, uint8 size×size×3."""
        return self._fit(image, self.size, self.margin)

    def fit_with_margin(self, image: Pixels) -> Pixels:
        """As `fit`, of side size + margin: what training takes random parts of."""
        return self._fit(image, self.size + self.margin, 0)

    def _fit(self, image: Pixels, size: int, margin: int) -> Pixels:
        values = self.normalise.model_dump()
        return fit(image, size, self.resize, self.colour, values, margin)


class Runtime(_Frozen):
    """How the graph is run: on the runtime `name`, or on ONNX Runtime where that is missing.

    `provider` is ONNX Runtime's execution provider; of OpenVINO, the CPU's. The key with a default
    came later: without it ONNX Runtime is meant, as it always was.
    """

    name: RuntimeName = "onnxruntime"
    provider: str
    intra_op_threads: int

    @property
    def title(self) -> str:
        """The runtime's own name."""
        return TITLES[self.name]


class Measurements(_Frozen):
    """What was measured of the deployed model, and of the fp32 one it came from."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    fp32_accuracy: float
    fp32_accuracy_low: float
    fp32_accuracy_high: float
    agreement_with_fp32: float
    latency_ms: float
    eager_fp32_latency_ms: float
    size_bytes: int


class Lineage(_Frozen):
    """Where the bundle came from."""

    git_commit: str | None
    dvc_lock: str | None
    params_hash: str
    run_key: str


class BundleInfo(_Frozen):
    """bundle.json. Without a decision (it came later) the model never abstains.

    `calibration` and `ood_score` came later too: without them it is a temperature, and no score.
    """

    schema_version: Literal[1]
    architecture: str
    technique: str
    classes: list[str]
    input: InputContract
    runtime: Runtime
    temperature: float
    calibration: CalibrationMethod = "temperature"
    ood_score: OodScore | None = None
    decision: Decision | None = None
    measurements: Measurements
    lineage: Lineage


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk; the graph is opened on first use."""

    path: Path
    info: BundleInfo
    digest: str

    @cached_property
    def runtime(self) -> RuntimeName:
        """What runs it here: the runtime that was chosen, or ONNX Runtime where that is missing."""
        name = self.info.runtime.name
        reason = missing(name)
        if reason is None:
            return name
        log.warning(
            "%s was measured on %s and runs on %s here, perhaps slower: %s",
            self.path,
            self.info.runtime.title,
            TITLES["onnxruntime"],
            reason,
        )
        return "onnxruntime"

    @cached_property
    def _run(self) -> Run:
        threads = self.info.runtime.intra_op_threads
        outputs = [PROBABILITIES, EMBEDDING] + ([OOD_SCORE] if self.info.ood_score else [])
        return open_model(self.path / MODEL, self.runtime, threads, outputs)

    def predict(self, images: Pixels) -> tuple[Floats, Floats]:
        """Run uint8 N×S×S×3 images; gives probabilities float32 N×C and embedding N×D."""
        probabilities, embedding, *_ = self._run(images)
        return probabilities, embedding

    def judge(self, images: Pixels) -> list[Floats]:
        """As `predict`, and where the bundle has an `ood_score`, that of each image, float32 [N].

        Higher is stranger; `decision.strange` says whether it is too strange.
        """
        return self._run(images)

    def pixels(self, source: Path | str | bytes) -> Pixels:
        """An image file as this bundle's input, uint8 S×S×3; raises UnreadableImage."""
        contract = self.info.input
        return self.fitted(read(source, contract.max_pixels))

    def fitted(self, image: Pixels) -> Pixels:
        """A decoded image, uint8 H×W×3, as the model's input, uint8 S×S×3."""
        return self.info.input.fit(image)

    def reference(self) -> dict[str, npt.NDArray[Any]]:
        """reference.npz as arrays by name."""
        with np.load(self.path / REFERENCE, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def metrics(self) -> dict[str, Any] | None:
        """metrics.json, as `data/metrics/evaluate.json` was; None of bundles from before it."""
        path = self.path / METRICS
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def write_bundle(
    path: Path, info: BundleInfo, settings: Settings, fill: Callable[[Path], None]
) -> str:
    """Build a bundle in a temporary directory, sign it and swap it in; returns its digest.

    `fill(directory)` writes every file of FILES but bundle.json.
    """

    def build(directory: Path) -> None:
        fill(directory)
        write_json(directory / INFO, info.model_dump())
        missing = [name for name in FILES if not (directory / name).is_file()]
        if missing:
            raise BundleError(f"the bundle lacks {', '.join(missing)}")
        refuse_external_data(directory / MODEL)
        sign_directory(directory, settings)

    write_directory(path, build)
    return verify_directory(path, settings)


def open_bundle(path: Path | str, settings: Settings) -> Bundle:
    """Verify signature, checksums, schema and that the model is one file; raises BundleError."""
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}; `dvc repro` builds one")
    digest = verify_directory(path, settings)
    try:
        info = BundleInfo.model_validate(json.loads((path / INFO).read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = f"{key}: {first['msg']}"
        raise BundleError(f"{path / INFO} is not of schema {SCHEMA_VERSION}: {reason}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path / INFO} cannot be read: {error}") from None
    refuse_external_data(path / MODEL)
    return Bundle(path, info, digest)
