"""Makes the graph to deploy of the chosen candidate, and asks it about the held-out images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.bundle import EMBEDDING
from tasks.data.shards import Shards
from tasks.errors import CompressionError
from tasks.evaluation.calibration import Calibration, calibrate
from tasks.evaluation.candidates import Candidates
from tasks.evaluation.folding import LOGITS, check_elsewhere, check_folded, fold, run_folded
from tasks.evaluation.graph import open_graph
from tasks.evaluation.ood import (
    Chosen,
    Run,
    Strangeness,
    choose_score,
    measure_strangeness,
    strange_from,
)
from tasks.runtime import Floats
from tasks.schema import Evaluate

HELD_OUT = ("test", "validation")


@dataclass(frozen=True)
class Deployed:
    """The graph, what was chosen for it, and its answers by split of HELD_OUT.

    `before` has the candidate's logits and embedding; `seen` the probabilities and embedding of the
    graph to deploy and, where there is one, its score of strangeness: N rows each.
    """

    run: Run
    calibration: Calibration
    score: Chosen | None
    before: dict[str, list[Floats]]
    seen: dict[str, list[Floats]]
    strange_from: float | None

    def strangeness(self, shards: Shards, params: Evaluate) -> Strangeness | None:
        """How the score tells strange images from test images; None where there is no score."""
        if self.score is None or self.strange_from is None:
            return None
        outputs = [*self.before["test"], self.seen["test"][2]]
        return measure_strangeness(self.score, shards, self.run, outputs, self.strange_from, params)


def deploy(shards: Shards, candidates: Candidates, params: Evaluate, model: Path) -> Deployed:
    """Choose calibration and score on validation images, fold them in, and write it to `model`.

    Raises CompressionError when the candidate does not fit the shards, or the graph is not what
    it was folded from.
    """
    source = candidates.file(candidates.chosen)
    runtime = candidates.named(candidates.chosen).runtime
    splits = {name: shards.split(name) for name in HELD_OUT}
    run = open_graph(source, [LOGITS, EMBEDDING], runtime)
    before = {name: run(splits[name].images) for name in ("validation", "test")}
    check_classes(before["test"][0], shards, source)
    labels = np.asarray(splits["validation"].labels)
    calibration = calibrate(params.calibration, before["validation"][0], labels, params.seed)
    chosen = choose_score(shards, run, before["validation"], params) if params.ood.enabled else None
    folded = calibration.calibrator, chosen.score if chosen else None
    fold(source, *folded, model)
    seen = {name: run_folded(model, one.images, folded[1], runtime) for name, one in splits.items()}
    check_folded(seen["test"], before["test"], *folded, model)
    if runtime != "onnxruntime":
        check_elsewhere(source, model, splits["test"].images, *folded)
    limit = strange_from(seen["validation"][2], params) if chosen else None
    return Deployed(run, calibration, chosen, before, seen, limit)


def check_classes(logits: Floats, shards: Shards, path: Path) -> None:
    """Raise CompressionError unless there is one logit a class."""
    if logits.shape[1] != len(shards.classes):
        raise CompressionError(
            f"{path} tells {logits.shape[1]} classes apart, the shards hold "
            f"{len(shards.classes)}; `dvc repro compress` brings them together"
        )
