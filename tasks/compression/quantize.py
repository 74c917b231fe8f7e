"""fp32 ONNX → int8 ONNX: static quantization that is tried in several ways and keeps the nearest.

Ranges come from training images, by every method of tasks.compression.calibration or the one
that the params name. Then equalised channels and corrected biases are tried, and kept where the
logits of other training images come nearer to the float graph's. When the result loses more on
validation images than the budget allows, the layers that cost most go back to float.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tasks.compression.calibration import RANGES, Observed, Range, observe, ranges
from tasks.compression.candidates import FloatLayer, Quantization
from tasks.compression.equalisation import correct_biases, equalise, pairs
from tasks.compression.export import save
from tasks.compression.int8 import activations, layers, prepare, to_int8
from tasks.compression.runtime import logit_error, run_logits
from tasks.compression.sensitivity import costs, put_back
from tasks.pixels import Images, Pixels, crop
from tasks.runtime import Floats, open_session
from tasks.schema import RangeMethod

_WORTH = 0.98  # of the error before: what equalising or correcting must bring it below
_FEW = 128  # images that a single layer's cost is measured on
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What an int8 graph must keep, or layers go back to float.

    `images` uint8 N×S×S×3 and `labels` int64 [N] are the validation split, `wanted` float32 N×C
    the fp32 network's logits of it; `accuracy` and `agreement` are the least shares.
    """

    images: Images
    labels: npt.NDArray[np.int64]
    wanted: Floats
    accuracy: float
    agreement: float

    def missed(self, logits: Floats) -> str:
        """The limits that these logits of `images` miss, in words; empty when none."""
        classes = logits.argmax(1)
        accuracy = float((classes == self.labels).mean())
        agreement = float((classes == self.wanted.argmax(1)).mean())
        found = []
        if not accuracy >= self.accuracy - 1e-9:
            found.append(f"accuracy {accuracy:.4f} is below {self.accuracy:.4f}")
        if not agreement >= self.agreement - 1e-9:
            found.append(f"agreement {agreement:.4f} is below {self.agreement:.4f}")
        return " and ".join(found)


@dataclass(frozen=True)
class _Attempt:
    """One way to quantize, and the error of its logits."""

    graph: Any
    seen: dict[str, Observed] = field(repr=False)
    method: RangeMethod
    int8: Any
    error: float
    equalised: int = 0
    corrected: bool = False

    @property
    def ranges(self) -> dict[str, Range]:
        return ranges(self.seen, self.method)


def quantize(
    source: Path,
    target: Path,
    images: Images,
    count: int,
    seed: int,
    method: RangeMethod = "auto",
    limits: Limits | None = None,
    like: Path | None = None,
) -> Quantization:
    """Quantize the graph of `source` (what tasks.compression.export wrote) into `target`.

    `images` are the training images, uint8 N×P×P×3, of whose middle the graph takes its input;
    `count` of them, drawn with `seed`, calibrate, and as many others judge by the logits. With
    `limits`, layers go back to float until they hold; where even that is not enough, all stay in
    int8. Returns what was done. Raises CompressionError when the graph has no layer for int8, or
    weights or activations that are not finite.

    The logits are to be near those of the graph `like`, or of `source` itself.
    """
    graph = prepare(source)
    layers(graph)  # or there is nothing to calibrate for
    size = _input_side(graph)
    calibration, judges = (
        np.ascontiguousarray(crop(images[rows], size)) for rows in draw(len(images), count, seed)
    )
    judge = _Judge(judges, run_logits(open_session(like or source, 1), judges))
    best = _nearest(graph, calibration, judge, method)
    best = _equalised(best, calibration, judge)
    best = _corrected(best, judge)
    log.info(
        "%s: ranges by %s, %d pairs of layers equalised, biases %s (logit error %.4f)",
        target.stem,
        best.method,
        best.equalised,
        "corrected" if best.corrected else "as they were",
        best.error,
    )
    floats = _float_layers(best, judge, limits, target.stem) if limits else []
    names = [layer.node for layer in floats]
    result = to_int8(best.graph, best.ranges, floats=names) if names else best.int8
    save(result, target)
    return Quantization(
        ranges=best.method,
        equalised_pairs=best.equalised,
        corrected_biases=best.corrected,
        logit_error=judge(result),
        float_layers=floats,
    )


def draw(total: int, count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of `total` training images the rows that calibrate and the rows that judge, ascending.

    The latter are the same where there are no others.
    """
    order = np.random.default_rng(seed).permutation(total)
    some, others = np.sort(order[:count]), np.sort(order[count : 2 * count])
    return some, others if len(others) else some


class _Judge:
    """Measures how far int8 graphs are from the float graph, on training images."""

    def __init__(self, images: Pixels, wanted: Floats) -> None:
        self.images, self.wanted = images, wanted

    def __call__(self, int8: Any) -> float:
        session = open_session(int8.SerializeToString(), 1)
        return logit_error(run_logits(session, self.images), self.wanted)


def _nearest(graph: Any, images: Pixels, judge: _Judge, method: RangeMethod) -> _Attempt:
    """The attempt with the least error, of all methods or the one that is asked for."""
    seen = observe(graph, activations(graph), images)
    methods = list(RANGES) if method == "auto" else [method]
    attempts = [_attempt(graph, seen, one, judge) for one in methods]
    tried = ", ".join(f"{attempt.method} {attempt.error:.4f}" for attempt in attempts)
    log.info("logit error by ranges: %s", tried)
    return min(attempts, key=lambda attempt: attempt.error)


def _attempt(graph: Any, seen: dict[str, Observed], method: RangeMethod, judge: _Judge) -> _Attempt:
    int8 = to_int8(graph, ranges(seen, method))
    return _Attempt(graph, seen, method, int8, judge(int8))


def _equalised(best: _Attempt, images: Pixels, judge: _Judge) -> _Attempt:
    found = pairs(best.graph)
    if not found:
        return best
    graph = equalise(best.graph)
    other = _attempt(graph, observe(graph, list(best.seen), images), best.method, judge)
    return replace(other, equalised=len(found)) if other.error < _WORTH * best.error else best


def _corrected(best: _Attempt, judge: _Judge) -> _Attempt:
    graph = correct_biases(best.graph, best.int8, best.seen)
    int8 = to_int8(graph, best.ranges)
    error = judge(int8)
    if error >= _WORTH * best.error:
        return best
    return replace(best, graph=graph, int8=int8, error=error, corrected=True)


def _float_layers(best: _Attempt, judge: _Judge, limits: Limits, name: str) -> list[FloatLayer]:
    """The layers that go back to float so that `limits` hold; each is logged."""
    missed = _missed(limits)
    why = missed(best.int8)
    if not why:
        return []
    images, wanted = judge.images[:_FEW], judge.wanted[:_FEW]
    cost = costs(best.graph, best.ranges, images, wanted)
    back = put_back(best.graph, best.ranges, list(cost), lambda int8: not missed(int8))
    if back is None:
        log.warning("%s: %s, and no layer in float would mend it", name, why)
        return []
    named = layers(best.graph)
    for node in back:
        log.info(
            "%s: %s; %s (%s) goes back to float: logit error %.4f by itself",
            name,
            why,
            node,
            named[node],
            cost[node],
        )
    return [FloatLayer(node=node, layer=named[node], logit_error=cost[node]) for node in back]


def _missed(limits: Limits) -> Callable[[Any], str]:
    return lambda int8: limits.missed(
        run_logits(open_session(int8.SerializeToString(), 1), limits.images)
    )


def _input_side(graph: onnx.ModelProto) -> int:
    """S of the graph's input N×S×S×3."""
    (graph_input,) = graph.graph.input
    return int(graph_input.type.tensor_type.shape.dim[1].dim_value)
