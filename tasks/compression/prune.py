"""Structured pruning: whole channels leave the network, so every runtime gets faster.

In one or several steps: the least important channels leave (see importance and channels) until
the step's part of the target is gone (see targets), and what remains is fine-tuned on the labels
and, by `alpha`, under distillation from the network that it came from.
"""

import copy
import logging
from bisect import bisect_left
from pathlib import Path
from typing import Any

from tasks.compression.channels import (
    Scores,
    Widths,
    keep_of_all,
    keep_of_layers,
    multiple_of,
    remove,
    require_prunable,
    score,
    widths,
)
from tasks.compression.distil import Splits, teach, tuning
from tasks.compression.importance import measure_of
from tasks.compression.targets import Removed, removed_from
from tasks.data.shards import ShardSplit
from tasks.errors import CompressionError
from tasks.schema import Distil, Prune, Train
from tasks.training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from tasks.training.models import Classifier, ModelSpec

_GRID = 256  # strengths to choose from, of which many round to the same network
_EXACT = 1e-9  # shares are quotients
log = logging.getLogger(__name__)


def prune(
    teacher: Classifier,
    spec: ModelSpec,
    splits: Splits,
    train: Train,
    settings: tuple[Prune, Distil],
    ratio: float,
    checkpoint: Path,
    latency_runs: int,
) -> Classifier:
    """A copy of `teacher` without `ratio` of the target, fine-tuned, by `alpha` under it.

    `splits` are training and validation. Files beside `checkpoint`, named by the step, are taken
    up again after a kill: what leaves (a latency measured again could decide otherwise) and the
    tuning. Raises CompressionError when the target cannot be reached, and TrainingError when
    tuning diverges.
    """
    pruning, distil = settings[0], settings[1].model_copy(update={"alpha": settings[0].alpha})
    require_prunable(teacher)
    pruner = Pruner(teacher, spec, splits[0], pruning, ratio, train.seed)
    student = teacher
    with removed_from(teacher, spec, pruning.target, latency_runs) as removed:
        for step in range(1, pruning.steps + 1):
            share = ratio * step / pruning.steps
            plan = checkpoint.with_stem(f"{checkpoint.stem}-{step}-plan")
            student = pruner.without(student, share, removed, plan)
            config = tuning(train, _epochs(pruning, step), pruning.lr)
            tuned = checkpoint.with_stem(f"{checkpoint.stem}-{step}")
            teach(student, teacher, (spec, splits), config, distil, tuned)
    return student


class Pruner:
    """Takes channels from one network, by the settings.

    Args:
        original: the network, of which all shares are.
        spec: of its inputs.
        train: the images whose gradients the importance taylor takes.
        pruning: the section.
        ratio: the share of the target that leaves in the end.
        seed: of the choice among those images.
    """

    def __init__(
        self,
        original: Classifier,
        spec: ModelSpec,
        train: ShardSplit,
        pruning: Prune,
        ratio: float,
        seed: int,
    ) -> None:
        self.spec, self.train, self.pruning, self.seed = spec, train, pruning, seed
        self.ratio = ratio
        self.widths, self.multiple = widths(original, spec), multiple_of(original)

    def without(
        self, model: Classifier, share: float, removed: Removed, plan: Path | None = None
    ) -> Classifier:
        """`model` without what it takes for at least `share` of the target to be gone.

        `plan` is where the decision is kept and, of the same network and settings, found.
        Raises CompressionError when `ratio` is more than can leave.
        """
        images = [self.train.hashes, self.train.labels]
        section = self.pruning.model_dump(exclude={"ratios"})
        settings = [section, self.spec.model_dump(), self.ratio, share, self.seed]
        key = fingerprint(model, settings, images)
        found = load_checkpoint(plan, key) if plan else None
        if found is None:
            found = self._decided(model, share, removed)
            if plan:
                save_checkpoint(plan, key, found)
        return remove(model, self.spec, found["scores"], found["keep"])

    def _decided(self, model: Classifier, share: float, removed: Removed) -> dict[str, Any]:
        """The scores of all channels, and how many of each group stay."""
        pruning, scores = self.pruning, self._scores(model)
        plans = self._plans(scores)

        def gone(keep: Widths) -> float:
            return removed(remove(model, self.spec, scores, keep)) + _EXACT

        most = gone(plans[-1])
        if most < self.ratio:
            raise CompressionError(
                f"compress.prune.ratios {self.ratio:g} of the {pruning.target} cannot leave: "
                f"with every layer as narrow as it can be, {most:.3g} of it has; lower it"
            )
        strength = min(bisect_left(plans, share, key=gone), len(plans) - 1)
        kept = sum(plans[strength].values()) / sum(self.widths[name] for name in scores)
        log.info("pruned to %.0f %% of the channels for %s %.3g", 100 * kept, pruning.target, share)
        return {"scores": scores, "keep": plans[strength]}

    def _scores(self, model: Classifier) -> Scores:
        copied = copy.deepcopy(model).eval()  # which gets the gradients
        name, seed = self.pruning.importance, self.seed
        return score(copied, self.spec, measure_of(name, copied, self.spec, self.train, seed))

    def _plans(self, scores: Scores) -> list[Widths]:
        """How many channels of each group stay, from all to as few as can be, no two alike."""
        keep = keep_of_layers if self.pruning.scope == "layer" else keep_of_all
        plans = [keep(scores, self.widths, self.multiple, n / _GRID) for n in range(_GRID + 1)]
        return [one for one, before in zip(plans, [None, *plans], strict=False) if one != before]


def _epochs(pruning: Prune, step: int) -> int:
    """The epochs of a step: as many of each, and what is left over of the last."""
    each = pruning.epochs // pruning.steps
    return each if step < pruning.steps else pruning.epochs - each * (pruning.steps - 1)
