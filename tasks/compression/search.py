"""Which networks are made: everything once, and of several strengths the few that may be chosen.

A technique's strengths are halved, from the middle: when one keeps the accuracy and agreement of
the budget the milder ones are larger for nothing, when it does not the stronger ones would lose
more still. Before a milder one is trained its shape is timed, in float and in int8: when a
candidate that keeps the budget is faster already, training it would not change the choice. What
was passed over is a row with its reason. What is built stays in `Context.work`, so a search that
was killed goes on where it was.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.compression.build import build
from tasks.compression.candidates import Absent, Candidate
from tasks.compression.choose import misses
from tasks.compression.context import Context
from tasks.compression.export import export
from tasks.compression.finished import Finished
from tasks.compression.measure import choose_threads, measure_latency, onnx_run
from tasks.compression.networks import FP32, Plan, ladders, original
from tasks.compression.quantize import draw, quantize
from tasks.errors import CompressionError
from tasks.runtime import RuntimeName, idle_gpu

_RUNS = 30  # timed, of a shape
_FASTER = 1.1  # times as fast is beyond what such a short measurement gets wrong
log = logging.getLogger(__name__)


class Search:
    """Builds the candidates of one compression: its rows `candidates`, `failed` and `skipped`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.candidates: list[Candidate] = []
        self.failed: list[Absent] = []
        self.skipped: list[Absent] = []
        self._finished = Finished(context)

    def run(self) -> None:
        """Build everything; raises CompressionError when fp32 itself fails."""
        _warn_of_missing_classes(self.context)
        for reason in idle_gpu() if self.context.params.gpu else ():
            log.warning("no candidate on it: %s", reason)
        for plan in original(self.context):
            self._build(plan)
            if plan.name == FP32:
                self._require_fp32()
        for ladder in ladders(self.context):
            self._climb(ladder)

    def _climb(self, ladder: Sequence[Plan]) -> None:
        low, high, first = 0, len(ladder) - 1, True
        while low <= high:
            if not self._finished.has_time():
                limit = f"compress.minutes {self.context.params.minutes:g} had passed"
                self._skip(ladder[low : high + 1], limit)
                return
            middle = (low + high) // 2
            plan = ladder[middle]
            faster = None if first else self._faster_than(plan)
            if faster:
                self._skip(ladder[low : middle + 1], faster)
                low = middle + 1
            elif kept := self._build(plan):
                self._skip(ladder[low:middle], f"{kept} is smaller and keeps the budget")
                low = middle + 1
            else:
                reason = f"{plan.name}, which is milder, does not keep the budget"
                self._skip(ladder[middle + 1 : high + 1], reason)
                high = middle - 1
            first = False

    def _build(self, plan: Plan) -> str | None:
        """The first candidate of this network that could be chosen, if there is one."""
        found = self._finished.load(plan)
        if found is None:
            found = build(self.context, plan)
            self._finished.save(plan, found)
        candidates = [row for row in found if isinstance(row, Candidate)]
        self.candidates += candidates
        self.failed += [row for row in found if isinstance(row, Absent)]
        keeping = (one for one in candidates if self._keeps(one) and not self._is_slow(one))
        return next((candidate.name for candidate in keeping), None)

    def _is_slow(self, candidate: Candidate) -> bool:
        """Whether int8 takes longer than its float parent, which rules it out."""
        if candidate.parent is None:
            return False
        both = [one for one in self.candidates if one.name in (candidate.parent, candidate.name)]
        found = self._timed({one.name: (one.file, one.runtime) for one in both})
        # A runtime may have int8 alone: the float graph is then no limit.
        return found[candidate.name] > found.get(candidate.parent, float("inf"))

    def _keeps(self, candidate: Candidate) -> bool:
        budget = self.context.budget
        if candidate.verdict == "rejected":
            return False
        if budget is None:
            return True
        measured_later = ("max_latency_ms", "max_size_mb", "max_memory_mb")
        accuracy_only = budget.model_copy(update=dict.fromkeys(measured_later))
        return not misses(candidate, self.candidates[0], accuracy_only)

    def _skip(self, plans: Sequence[Plan], reason: str) -> None:
        for plan in plans:
            log.info("%s is passed over: %s", plan.name, reason)
            self.skipped.append(Absent(name=plan.name, technique=plan.technique, reason=reason))

    def _faster_than(self, plan: Plan) -> str | None:
        """Why this network cannot be the fastest, if it cannot: a measurement of its shape."""
        rivals = [candidate for candidate in self.candidates if self._keeps(candidate)]
        try:
            files = self._shape(plan)
        except CompressionError:
            return None  # building it will say why
        # Beside ONNX Runtime, those that ran such a graph: TensorRT may not take int8, say.
        ran = {(row.runtime, row.parent is None) for row in self.candidates}
        own = {
            f"{file} on {name}": (file, name)
            for file in files
            for name in self.context.runtimes
            if name == "onnxruntime" or (name, file == files[0]) in ran
        }
        theirs = {rival.name: (rival.file, rival.runtime) for rival in rivals}
        found = self._timed(own | theirs)
        least = min(found[name] for name in own)
        best = min(theirs, key=lambda name: found[name], default=None)
        if best is None or least < _FASTER * found[best]:
            return None
        return (
            f"its shape alone takes {least:.3g} ms; {best}, which keeps the budget, "
            f"{found[best]:.3g} ms"
        )

    def _timed(self, graphs: Mapping[str, tuple[str, RuntimeName]]) -> dict[str, float]:
        """Milliseconds of graphs, each a file and its runtime, in turn; as many threads for all."""
        folder, image = self.context.folder, self.context.validation.images[:1].copy()
        threads = choose_threads(folder / f"{FP32}.onnx", image, _RUNS)
        runs = {
            name: onnx_run(folder / file, image, threads, runtime)
            for name, (file, runtime) in graphs.items()
        }
        return {name: one.median_ms for name, one in measure_latency(runs, _RUNS).items()}

    def _shape(self, plan: Plan) -> list[str]:
        """Files of the untrained network in float and in int8."""
        context = self.context
        model, spec = plan.shape(context)
        source, target = context.folder / "shape.onnx", context.folder / "shape-int8.onnx"
        export(model, spec, source)
        quantize(source, target, context.train.images, 16, context.params.seed, "min_max")
        return [source.name, target.name]

    def _require_fp32(self) -> None:
        """Without the fp32 graph there is nothing to compare with."""
        for failure in self.failed:
            if failure.name == FP32:
                raise CompressionError(f"the trained model cannot be exported: {failure.reason}")
        fp32 = self.candidates[0]
        if fp32.verdict == "rejected":
            raise CompressionError(f"the exported fp32 model {fp32.reason}")


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
