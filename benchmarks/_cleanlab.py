"""cleanlab's label scores and issues, from a process in an environment of its own."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from benchmarks._environments import Peer, interpreter
from benchmarks._planted_labels import Planted

PACKAGE = "cleanlab==2.9.0"
DEFAULT = "self_confidence"
# Every score that cleanlab offers, adjusted for class confidence where it can be.
_SCRIPT = """
import sys, time
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores as quality
source, target = sys.argv[1:]
data = np.load(source)
labels, probabilities = data["labels"], data["probabilities"]
scores = {}
for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
    scores[method] = quality(labels, probabilities, method=method)
    if method != "confidence_weighted_entropy":
        scores["adjusted_" + method] = quality(
            labels, probabilities, method=method, adjust_pred_probs=True
        )
np.savez(target, issues=find_label_issues(labels, probabilities, n_jobs=1), **scores)
print("ready", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    find_label_issues(labels, probabilities, n_jobs=1)
    quality(labels, probabilities)
    print(time.perf_counter() - started, flush=True)
"""


@dataclass(frozen=True)
class Judged:
    """Suspicion of each image by method, float [N], higher is worse, and which are issues."""

    suspicion: dict[str, npt.NDArray[np.float64]]
    issues: npt.NDArray[np.bool_]


class Cleanlab:
    """cleanlab at work on one set of probabilities; `seconds` times its default calls once."""

    def __init__(self, planted: Planted) -> None:
        self._folder = tempfile.TemporaryDirectory()
        source, target = (Path(self._folder.name) / name for name in ("in.npz", "out.npz"))
        np.savez(source, labels=planted.labels, probabilities=planted.probabilities)
        self._peer = Peer(interpreter("cleanlab", PACKAGE), _SCRIPT, str(source), str(target))
        self._peer.answer()
        with np.load(target) as found:
            suspicion = {name: -found[name] for name in found.files if name != "issues"}
            self.judged = Judged(suspicion, found["issues"])

    def seconds(self) -> float:
        """Of finding the issues and scoring all labels, in its own process."""
        return float(self._peer.ask(""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._peer.__exit__(kind, error, trace)
        self._folder.cleanup()
