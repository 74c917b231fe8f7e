"""A graph on every runtime at hand, each beside the PyTorch network that it was made from.

It is run over all validation images in batches of 1, 2, 7 and 64. ONNX Runtime on the CPU comes
first and has to run it; another runtime that cannot is an `Absent` with its reason.
"""

import logging
from collections.abc import Callable

import numpy as np

from tasks.compression.accuracy import accuracy_of
from tasks.compression.candidates import Absent, Candidate
from tasks.compression.context import Context
from tasks.compression.runtime import in_batches
from tasks.errors import CompressionError
from tasks.metrics.reliability import softmax
from tasks.runtime import Floats, RuntimeName, open_model

_BATCHES = (1, 2, 7, 64)
Row = Candidate | Absent
Rows = tuple[Candidate, list[Row]]  # on ONNX Runtime, and on the others
log = logging.getLogger(__name__)


def on_runtimes(
    context: Context,
    name: str,
    technique: str,
    parent: str | None,
    parameters: int,
    logits: Floats,
) -> Rows:
    """The candidates of the graph `name`.onnx, whose network gives `logits`, float32 N×C."""

    def candidate(runtime: RuntimeName) -> Candidate:
        outputs = _outputs(context, name, runtime)
        return Candidate(
            name=on(name, runtime),
            technique=technique,
            file=f"{name}.onnx",
            parent=parent and on(parent, runtime),
            runtime=runtime,
            parameters=parameters,
            size_bytes=(context.folder / f"{name}.onnx").stat().st_size,
            parity_max_difference=float(np.abs(softmax(outputs) - softmax(logits)).max()),
            parity_agreement=float((outputs.argmax(1) == logits.argmax(1)).mean()),
            **accuracy_of(outputs, context.wanted, context.validation.labels, context.spec.classes),
        )

    first, *others = context.runtimes
    found = candidate(first)
    _log(found)
    rows: list[Row] = []
    for runtime in others:
        try:
            rows.append(candidate(runtime))
        except Exception as error:
            # OpenVINO begins with where in its source the error arose.
            rows.append(absent(on(name, runtime), technique, error, said=-1))
        else:
            _log(rows[-1])
    return found, rows


def changed(rows: Rows, change: Callable[[Candidate], Candidate]) -> Rows:
    """The rows with `change` made to each candidate."""
    first, others = rows
    return change(first), [change(row) if isinstance(row, Candidate) else row for row in others]


def absent(name: str, technique: str, error: Exception, said: int = 0) -> Absent:
    """The row of a candidate that could not be built; a full disk ends the step instead.

    The reason is line `said` of the error.
    """
    if isinstance(error, OSError):
        raise error
    log.warning("%s could not be built", name, exc_info=not isinstance(error, CompressionError))
    lines = str(error).strip().splitlines() or [""]
    return Absent(name=name, technique=technique, reason=f"{type(error).__name__}: {lines[said]}")


def on(name: str, runtime: RuntimeName) -> str:
    """The name of a graph's candidate on a runtime: ONNX Runtime is the one that goes unsaid."""
    return name if runtime == "onnxruntime" else f"{name}@{runtime}"


def _outputs(context: Context, name: str, runtime: RuntimeName) -> Floats:
    path = context.folder / f"{name}.onnx"
    run = open_model(path, runtime, 1, ["logits"])
    outputs = in_batches(run, context.validation.images, _BATCHES)
    if not np.isfinite(outputs).all():
        raise CompressionError(f"{path.name} gives logits that are not finite on {runtime}")
    return outputs


def _log(candidate: Row) -> None:
    if isinstance(candidate, Candidate):
        log.info(
            "%s: accuracy %.2f %%, parity %.2g, %d bytes",
            candidate.name,
            100 * candidate.accuracy,
            candidate.parity_max_difference,
            candidate.size_bytes,
        )
