"""Ranges of activations for int8, from what a float graph computes on calibration images.

The graph is run twice: for the extremes of each tensor, then for its histogram. Every method
in RANGES reads its range from these, so that trying another one costs no run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tasks.compression.export import INPUT
from tasks.errors import CompressionError
from tasks.pixels import Pixels
from tasks.runtime import Floats, open_session
from tasks.schema import RangeMethod

Range = tuple[float, float]
Doubles = npt.NDArray[np.float64]
_BINS = 2048
_BATCH, _LARGE_BATCH, _LARGE = 16, 4, 64  # fewer images of a longer side at a time: memory
_VALUES = 2**15  # of a tensor and image that the histogram counts; of more, every k-th
_TAIL = 5e-5  # of the values, cut off at either end by "percentile"
_LEVELS = 128  # what "entropy" quantizes to while it compares, as in Migacz 2017
_STEP = 16  # bins from one threshold that is tried to the next
_SHARES = np.linspace(0.02, 1.0, 99)[:, None]  # of the extremes that "mse" tries


@dataclass(frozen=True)
class Observed:
    """What one tensor was on the calibration images.

    `lows` and `highs` are float64 [batches]; `counts` float64 [bins], a histogram from the lowest
    low to the highest high; `means` float64 [C], by channel, of N×C×H×W tensors.
    """

    lows: Doubles
    highs: Doubles
    counts: Doubles
    means: Doubles | None

    @property
    def extremes(self) -> Range:
        """The lowest and the highest value, widened to hold zero."""
        return min(0.0, float(self.lows.min())), max(0.0, float(self.highs.max()))

    def below(self, values: Doubles) -> Doubles:
        """How many of the counted values are below each of `values`."""
        edges = np.linspace(self.lows.min(), self.highs.max(), len(self.counts) + 1)
        return np.asarray(np.interp(values, edges, np.concatenate([[0.0], self.counts.cumsum()])))


def observe(graph: Any, tensors: Sequence[str], images: Pixels) -> dict[str, Observed]:
    """Run an onnx.ModelProto on uint8 N×S×S×3 images and note what `tensors` are.

    Raises CompressionError naming the first tensor that is not finite.
    """
    session = open_session(_with_outputs(graph, tensors), 1)
    return collect(lambda: _run(session, tensors, images))


def collect(run: Callable[[], Iterator[tuple[str, Floats]]]) -> dict[str, Observed]:
    """What tensors were, of a run that gives the name and the values of each, batch by batch.

    It is called twice. Values are float32 [images of the batch, …]. Raises CompressionError
    naming the first tensor that is not finite.
    """
    lows: dict[str, list[Any]] = {}
    highs: dict[str, list[Any]] = {}
    means: dict[str, list[Any]] = {}
    images: dict[str, int] = {}
    for name, values in run():
        lows.setdefault(name, []).append(values.min())
        highs.setdefault(name, []).append(values.max())
        if not np.isfinite(lows[name][-1] + highs[name][-1]):
            raise CompressionError(f"{name} is not finite on calibration images: {values.max()}")
        images[name] = images.get(name, 0) + len(values)
        if values.ndim == 4:
            mean = values.mean((0, 2, 3), dtype=np.float64)
            means.setdefault(name, []).append(mean * len(values))
    counts = {name: np.zeros(_BINS) for name in lows}
    for name, values in run():
        counts[name] += _histogram(values, min(lows[name]), max(highs[name]))
    return {
        name: Observed(
            np.array(lows[name], np.float64),
            np.array(highs[name], np.float64),
            counts[name],
            np.sum(means[name], 0) / images[name] if name in means else None,
        )
        for name in lows
    }


def _min_max(seen: Observed) -> Range:
    """Nothing is clipped."""
    return seen.extremes


def _average(seen: Observed) -> Range:
    """The mean over batches of their extremes: leaves out what one odd image reaches."""
    return float(seen.lows.mean()), float(seen.highs.mean())


def _percentile(seen: Observed) -> Range:
    """Without the outermost values at either end."""
    low, high = seen.extremes
    edges = np.linspace(low, high, _BINS + 1)
    shares = seen.below(edges) / seen.counts.sum()
    left = int(np.searchsorted(shares, _TAIL, "right")) - 1
    right = int(np.searchsorted(shares, 1 - _TAIL))
    return float(edges[max(left, 0)]), float(edges[min(right, _BINS)])


def _entropy(seen: Observed) -> Range:
    """The clipping of |x| whose distribution diverges least from the whole (Kullback-Leibler).

    Migacz 2017, "8-bit Inference with TensorRT".
    """
    low, high = seen.extremes
    edges = np.linspace(0, max(-low, high), _BINS + 1)
    counts = np.diff(seen.below(edges) - seen.below(-edges))
    counts[0] = counts[1]  # zeros are exact at any threshold, and rectifiers make many
    ends = range(_LEVELS, _BINS + 1, _STEP)
    threshold = float(edges[min(ends, key=lambda end: _divergence(counts, end))])
    return max(low, -threshold), min(high, threshold)


def _mse(seen: Observed) -> Range:
    """The range with the smallest mean squared error of uint8, each end sought in turn."""
    low, high = seen.extremes
    edges = np.linspace(low, high, _BINS + 1)
    counts, values = np.diff(seen.below(edges)), (edges[1:] + edges[:-1]) / 2
    for _ in range(2):
        high = _best(counts, values, np.full_like(_SHARES, low), _SHARES * seen.extremes[1])[1]
        if low < 0:
            low = _best(counts, values, _SHARES * seen.extremes[0], np.full_like(_SHARES, high))[0]
    return low, high


RANGES: dict[RangeMethod, Callable[[Observed], Range]] = {
    "min_max": _min_max,
    "average": _average,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}


def ranges(observed: dict[str, Observed], method: RangeMethod) -> dict[str, Range]:
    """The range of every tensor by one method."""
    return {
        # of a constant there is nothing to choose
        name: RANGES[method](seen) if seen.lows.min() < seen.highs.max() else seen.extremes
        for name, seen in observed.items()
    }


def _with_outputs(graph: Any, tensors: Sequence[str]) -> bytes:
    """The graph, serialized, with `tensors` as its only outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return bytes(copy.SerializeToString())


def _run(session: Any, tensors: Sequence[str], images: Pixels) -> Iterator[tuple[str, Floats]]:
    size = _BATCH if images.shape[1] <= _LARGE else _LARGE_BATCH
    for start in range(0, len(images), size):
        values = session.run(list(tensors), {INPUT: images[start : start + size]})
        yield from zip(tensors, values, strict=True)


def _histogram(values: Floats, low: float, high: float) -> Doubles:
    # An odd step, so that it does not fall on one column of every row.
    step = max(1, values.size // (len(values) * _VALUES)) | 1
    some = values.reshape(-1)[::step]
    places = ((some - low) * (_BINS / max(high - low, 1e-30))).astype(np.int64)
    return np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS).astype(np.float64)


def _divergence(counts: Doubles, end: int) -> float:
    """KL(clipped ‖ clipped and quantized) of a histogram cut at bin `end`, in nats."""
    kept = counts[:end]
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    starts = np.linspace(0, end, _LEVELS, endpoint=False).astype(int)
    filled = clipped > 0  # where the tail is counted too: those empty in it stay empty
    totals, sizes = np.add.reduceat(kept, starts), np.add.reduceat(filled.astype(float), starts)
    level = np.repeat(totals / np.maximum(sizes, 1), np.diff(starts, append=end)) * filled
    p, q = clipped / clipped.sum(), (level + 1e-9) / (level + 1e-9).sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def _best(counts: Doubles, values: Doubles, lows: Doubles, highs: Doubles) -> Range:
    """Of the ranges lows[k]..highs[k] (columns), that with the least squared error of uint8."""
    scale = (highs - lows) / 255
    scale = np.where(scale > 0, scale, 1.0)
    zero = np.round(-lows / scale)
    levels = np.clip(np.round(values / scale) + zero, 0, 255)
    errors = (((levels - zero) * scale - values) ** 2) @ counts
    best = int(errors.argmin())
    return float(lows[best, 0]), float(highs[best, 0])
