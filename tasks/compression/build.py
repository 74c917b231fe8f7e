"""Builds the candidates of one network: its float graph, its int8 graph, each on every runtime.

What cannot be built is an `Absent` with its reason, never a gap.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tasks.compression.candidates import Absent, Candidate
from tasks.compression.context import Context, Network
from tasks.compression.export import export
from tasks.compression.finetune_int8 import finetune_int8
from tasks.compression.networks import FP32, Plan
from tasks.compression.on_runtimes import Rows, absent, changed, on_runtimes
from tasks.compression.quantize import Limits, quantize
from tasks.compression.storage import store
from tasks.compression.targets import count_parameters
from tasks.runtime import Floats
from tasks.schema import RangeMethod, Storage
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec

PARITY = 1e-3  # largest probability difference a float export may show
log = logging.getLogger(__name__)


def build(context: Context, plan: Plan) -> list[Candidate | Absent]:
    """The float candidates of a network and what follows from them, or why there are none."""
    return list(_family(context, plan))


def _family(context: Context, plan: Plan) -> Iterator[Candidate | Absent]:
    name, technique = plan.name, plan.technique
    int8 = f"{technique}, static int8" if name != FP32 else "static int8"
    try:
        model, spec = plan.make(context)
        logits = predict(model, context.validation.images, spec)
        parent, others = _float(context, plan, model, spec, logits)
    except Exception as error:
        yield absent(name, technique, error)
        yield Absent(name=f"{name}-int8", technique=int8, reason=f"{name} could not be built")
        return
    yield from (parent, *others)
    if parent.verdict == "rejected":
        yield Absent(name=f"{name}-int8", technique=int8, reason=f"{name}: {parent.reason}")
        return
    try:
        given = context.folder / parent.file, logits
        plain, others = _int8(context, parent, f"{name}-int8", int8, given)
        yield from (plain, *others)
    except Exception as error:
        yield absent(f"{name}-int8", int8, error)
    else:
        yield from _finetuned(context, (model, spec), parent, plain)
    for kind in context.params.quantize.weights_only:
        stored = f"{technique}, weights stored as {kind}"
        try:
            smaller, others = _stored(context, parent, stored, kind, logits)
            yield from (smaller, *others)
        except Exception as error:
            yield absent(f"{name}-{kind}-weights", stored, error)


def _float(
    context: Context, plan: Plan, model: Classifier, spec: ModelSpec, logits: Floats
) -> Rows:
    export(model, spec, context.folder / f"{plan.name}.onnx")
    parameters = count_parameters(model)
    made = on_runtimes(context, plan.name, plan.technique, None, parameters, logits)
    return changed(made, _like_its_network)


def _like_its_network(candidate: Candidate) -> Candidate:
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
) -> Rows:
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
    made = on_runtimes(context, name, technique, parent.name, parent.parameters, logits)
    return changed(made, lambda candidate: candidate.model_copy(update={"quantization": done}))


def _finetuned(
    context: Context, network: Network, parent: Candidate, plain: Candidate
) -> Iterator[Candidate | Absent]:
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
        made, others = _int8(context, parent, name, technique, (source, logits), like)
        yield from (made, *others)
    except Exception as error:
        yield absent(name, technique, error)


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
) -> Rows:
    name = f"{parent.name}-{kind}-weights"
    store(context.folder / parent.file, context.folder / f"{name}.onnx", kind)
    # Without a parent: these are for size, and must not be faster.
    return on_runtimes(context, name, technique, None, parent.parameters, logits)
