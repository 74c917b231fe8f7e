"""Builds every candidate: float networks by three techniques, and an int8 graph of each.

Each ONNX file is run over all validation images in batches of 1, 2, 7 and 64 and compared
with the PyTorch network it was made from. What cannot be built is a `Failure` with its
reason, never a gap.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from tasks.compression.candidates import Candidate, Failure
from tasks.compression.distil import distil
from tasks.compression.export import export
from tasks.compression.finetune_int8 import finetune_int8
from tasks.compression.prune import prune
from tasks.compression.quantize import Limits, draw, quantize
from tasks.compression.runtime import Floats, open_session, run_logits
from tasks.compression.storage import store
from tasks.compression.targets import count_parameters
from tasks.data.shards import ShardSplit
from tasks.errors import CompressionError
from tasks.schema import Budget, Compress, RangeMethod, Storage, Train
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec

FP32 = "fp32"
PARITY = 1e-3  # largest probability difference a float export may show
_BATCHES = (1, 2, 7, 64)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What candidates are made of. `folder` takes the ONNX files, `work` the checkpoints.

    `mentor` is the ensemble that the distilled student learns from, if there is one; `soup` the
    network of averaged weights, which is a candidate of its own. Of `budget`, int8 keeps accuracy
    and agreement by layers that go back to float; without one all layers are int8.
    """

    teacher: Classifier
    spec: ModelSpec
    train: ShardSplit
    validation: ShardSplit
    training: Train
    params: Compress
    folder: Path
    work: Path
    mentor: Classifier | None = None
    soup: "Network | None" = None
    budget: Budget | None = None

    @cached_property
    def wanted(self) -> Floats:
        """Validation logits of the fp32 PyTorch model."""
        return predict(self.teacher, self.validation.images, self.spec)

    @property
    def splits(self) -> tuple[ShardSplit, ShardSplit]:
        """Training and validation."""
        return self.train, self.validation


Network = tuple[Classifier, ModelSpec]


def build_all(context: Context) -> tuple[list[Candidate], list[Failure]]:
    """Every candidate, in a fixed order; raises CompressionError when fp32 itself fails."""
    _warn_of_missing_classes(context)
    candidates: list[Candidate] = []
    failed: list[Failure] = []
    soup = context.soup
    networks = _NETWORKS if soup is None else {**_NETWORKS, "soup": ("model soup", lambda _: soup)}
    for name, (technique, make) in networks.items():
        for result in _family(context, name, technique, make):
            (candidates if isinstance(result, Candidate) else failed).append(result)  # type: ignore[arg-type]
        if name == FP32:
            _require_fp32(candidates, failed)
    return candidates, failed


def softmax(logits: Floats) -> Floats:
    """Probabilities float32 N×C."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def _fp32(context: Context) -> Network:
    return context.teacher, context.spec


def _distilled(context: Context) -> Network:
    params = context.params.distil
    checkpoint = context.work / "distilled.pt"
    teacher = context.mentor or context.teacher
    return distil(teacher, context.spec, context.splits, context.training, params, checkpoint)


def _pruned(context: Context) -> Network:
    params, checkpoint = context.params, context.work / "pruned.pt"
    model = prune(
        context.teacher,
        context.spec,
        context.splits,
        context.training,
        (params.prune, params.distil),
        checkpoint,
        params.latency_runs,
    )
    return model, context.spec


_NETWORKS: dict[str, tuple[str, Callable[[Context], Network]]] = {
    FP32: ("float32", _fp32),
    "distilled": ("knowledge distillation", _distilled),
    "pruned": ("structured pruning", _pruned),
}


def _family(
    context: Context, name: str, technique: str, make: Callable[[Context], Network]
) -> Iterator[Candidate | Failure]:
    """The float candidate and its int8 graph, or why there is none."""
    int8 = f"{technique}, static int8" if name != FP32 else "static int8"
    try:
        model, spec = make(context)
        logits = predict(model, context.validation.images, spec)
        parent = _float(context, name, technique, model, spec, logits)
        yield parent
        if parent.verdict == "rejected":
            yield Failure(name=f"{name}-int8", technique=int8, reason=f"{name}: {parent.reason}")
            return
    except Exception as error:
        yield _failure(name, technique, error)
        yield Failure(name=f"{name}-int8", technique=int8, reason=f"{name} could not be built")
        return
    try:
        given = context.folder / parent.file, logits
        plain = _int8(context, parent, f"{name}-int8", int8, given)
        yield plain
    except Exception as error:
        yield _failure(f"{name}-int8", int8, error)
    else:
        yield from _finetuned(context, (model, spec), parent, plain)
    for kind in context.params.quantize.weights_only:
        stored = f"{technique}, weights stored as {kind}"
        try:
            yield _stored(context, parent, stored, kind, logits)
        except Exception as error:
            yield _failure(f"{name}-{kind}-weights", stored, error)


def _failure(name: str, technique: str, error: Exception) -> Failure:
    """The row of a candidate that could not be built; a full disk ends the step instead."""
    if isinstance(error, OSError):
        raise error
    log.warning("%s could not be built", name, exc_info=not isinstance(error, CompressionError))
    lines = str(error).strip().splitlines() or [""]
    return Failure(name=name, technique=technique, reason=f"{type(error).__name__}: {lines[0]}")


def _float(
    context: Context, name: str, technique: str, model: Classifier, spec: ModelSpec, logits: Floats
) -> Candidate:
    export(model, spec, context.folder / f"{name}.onnx")
    candidate = _checked(context, name, technique, None, count_parameters(model), logits)
    difference = candidate.parity_max_difference
    # Written so that a difference of NaN is refused too.
    if not difference <= PARITY:
        reason = f"differs from its PyTorch model by {difference:.3g} in probability"
        return candidate.rejected(f"{reason} (allowed: {PARITY:g})")
    return candidate


def _int8(
    context: Context,
    parent: Candidate,
    name: str,
    technique: str,
    given: tuple[Path, Floats],
    like: Path | None = None,
) -> Candidate:
    """The int8 graph `name` of a float graph, which `given` has with its logits."""
    settings, (source, logits) = context.params.quantize, given
    done = quantize(
        source,
        context.folder / f"{name}.onnx",
        context.train.images,
        settings.calibration_images,
        context.params.seed,
        settings.ranges,
        _limits(context, parent),
        like,
    )
    candidate = _checked(context, name, technique, parent.name, parent.parameters, logits)
    return candidate.model_copy(update={"quantization": done})


def _finetuned(
    context: Context, network: Network, parent: Candidate, plain: Candidate
) -> Iterator[Candidate | Failure]:
    """Where `plain` missed the budget in int8 throughout, that of the network fine-tuned for it."""
    limits, done, (model, spec) = _limits(context, parent), plain.quantization, network
    if not context.params.quantize.finetune_epochs or limits is None or done is None:
        return
    keeps = plain.accuracy >= limits.accuracy and plain.agreement >= limits.agreement
    if keeps and not done.float_layers:
        return
    name, technique = f"{plain.name}-finetuned", f"{plain.technique}, fine-tuned for it"
    source, data = context.work / f"{name}.onnx", (spec, context.splits)
    log.info(
        "%s misses the budget where all layers are int8: its network is fine-tuned", plain.name
    )
    try:
        tuned = finetune_int8(
            model,
            context.teacher,
            data,
            context.training,
            context.params,
            cast(RangeMethod, done.ranges),
            context.work / f"{name}.pt",
        )
        export(tuned, spec, source)
        logits = predict(tuned, context.validation.images, spec)
        # In float it may be worse than it was: the teacher, not it, is what int8 is to be near.
        like = context.folder / f"{FP32}.onnx"
        yield _int8(context, parent, name, technique, (source, logits), like)
    except Exception as error:
        yield _failure(name, technique, error)


def _warn_of_missing_classes(context: Context) -> None:
    """Ranges of activations can only hold what the calibration images show."""
    labels, settings = context.train.labels, context.params
    rows, _ = draw(len(labels), settings.quantize.calibration_images, settings.seed)
    shown, present = (len(np.unique(some)) for some in (labels[rows], labels))
    if shown < present:
        log.warning(
            "the %d calibration images show %d of the %d classes: int8 may be wrong on the others; "
            "raise compress.quantize.calibration_images",
            len(rows),
            shown,
            present,
        )


def _limits(context: Context, parent: Candidate) -> Limits | None:
    """What the budget asks of an int8 graph; None when not even its float parent keeps it."""
    budget, split = context.budget, context.validation
    if budget is None:
        return None
    accuracy = float((context.wanted.argmax(1) == split.labels).mean())
    least = accuracy - budget.max_accuracy_drop
    if parent.accuracy < least or parent.agreement < budget.min_agreement:
        return None
    return Limits(split.images, split.labels, context.wanted, least, budget.min_agreement)


def _stored(
    context: Context, parent: Candidate, technique: str, kind: Storage, logits: Floats
) -> Candidate:
    name = f"{parent.name}-{kind}-weights"
    store(context.folder / parent.file, context.folder / f"{name}.onnx", kind)
    # Without a parent: these are for size, and must not be faster.
    return _checked(context, name, technique, None, parent.parameters, logits)


def _checked(
    context: Context,
    name: str,
    technique: str,
    parent: str | None,
    parameters: int,
    logits: Floats,
) -> Candidate:
    """Run the graph over all validation images and compare with its network's `logits`."""
    path = context.folder / f"{name}.onnx"
    outputs = run_logits(open_session(path, 1), context.validation.images, _BATCHES)
    classes = outputs.argmax(1)
    candidate = Candidate(
        name=name,
        technique=technique,
        file=path.name,
        parent=parent,
        parameters=parameters,
        accuracy=float((classes == context.validation.labels).mean()),
        agreement=float((classes == context.wanted.argmax(1)).mean()),
        parity_max_difference=float(np.abs(softmax(outputs) - softmax(logits)).max()),
        parity_agreement=float((classes == logits.argmax(1)).mean()),
        size_bytes=path.stat().st_size,
    )
    if not np.isfinite(outputs).all():
        raise CompressionError(f"{path.name} gives logits that are not finite")
    log.info(
        "%s: accuracy %.2f %%, parity %.2g, %d bytes",
        name,
        100 * candidate.accuracy,
        candidate.parity_max_difference,
        candidate.size_bytes,
    )
    return candidate


def _require_fp32(candidates: list[Candidate], failed: list[Failure]) -> None:
    """Without the fp32 graph there is nothing to compare with."""
    for failure in failed:
        if failure.name == FP32:
            raise CompressionError(f"the trained model cannot be exported: {failure.reason}")
    for candidate in candidates:
        if candidate.name == FP32 and candidate.verdict == "rejected":
            raise CompressionError(f"the exported fp32 model {candidate.reason}")
