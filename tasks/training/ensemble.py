"""Several trained networks as one: a vote of their probabilities, or the average of their weights.

Either is a `Classifier` like any other: it predicts, is exported as one graph, and teaches. What
`write_ensemble` leaves in a directory (ensemble.json, and the members) `load_members` reads.
"""

import copy
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from tasks.errors import TrainingError
from tasks.files import write_json
from tasks.schema import Ensemble
from tasks.training.inference import predict
from tasks.training.models import Classifier, ModelSpec, load_model, normalise, save_model
from tasks.training.reading import read_ahead

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

INDEX = "ensemble.json"
_STATISTICS_IMAGES, _BATCH = 4096, 256  # that a soup's batch norms are measured on
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A trained network, and its cross-entropy (nats per image) on images it did not learn."""

    name: str
    model: Classifier
    spec: ModelSpec
    loss: float


class _Embeddings(nn.Module):
    """The embeddings of all members beside each other, each from the input it was trained on."""

    def __init__(self, members: Sequence[Member], spec: ModelSpec) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.model.backbone for member in members)
        self.changes = nn.ModuleList(_normalised_anew(spec, member.spec) for member in members)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised float N×3×S×S to N×ΣD."""
        pairs = zip(self.members, self.changes, strict=True)
        return torch.cat([backbone(change(x)) for backbone, change in pairs], 1)


class _Vote(nn.Module):
    """The heads of all members, and the mean of their probabilities as one set of logits."""

    def __init__(self, heads: Sequence[nn.Module], widths: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.widths = list(widths)

    def forward(self, embeddings: Tensor) -> Tensor:
        """N×ΣD to logits N×C whose softmax is the mean of the members' probabilities."""
        parts = torch.split(embeddings, self.widths, 1)
        each = [head(part) for head, part in zip(self.heads, parts, strict=True)]
        votes = torch.stack([F.log_softmax(logits, 1) for logits in each])
        return votes.logsumexp(0) - math.log(len(each))


class _Rescaled(nn.Module):
    """Inputs of one normalisation as those of another: x·scale + shift per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, given: ModelSpec, wanted: ModelSpec) -> None:
        super().__init__()
        mean, std, own_mean, own_std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (given.mean, given.std, wanted.mean, wanted.std)
        )
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def vote(members: Sequence[Member], spec: ModelSpec) -> Classifier:
    """One network for inputs normalised by `spec`; its probabilities are the members' mean.

    (Soft voting: Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty
    estimation using deep ensembles".) The embedding is that of all members, side by side.
    """
    example = torch.zeros(1, 3, spec.size, spec.size)
    with torch.inference_mode():
        widths = [member.model.eval().embed(example).shape[1] for member in members]
    heads = [member.model.head for member in members]
    return Classifier(_Embeddings(members, spec), _Vote(heads, widths)).eval()


def greedy_soup(
    members: Sequence[Member], train: "ShardSplit", validation: "ShardSplit"
) -> tuple[Member, list[str]]:
    """The average of the members' weights that does best on `validation`, and who is in it.

    Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models": from the
    best on, a member stays if the average with it has a lower loss. Of another shape than the
    best one cannot be averaged. Batch norms get the statistics of training images: those of an
    average are none's average. Members are in the order they are tried.
    """
    best, *others = members
    soup, kept = best, [best]
    for member in others:
        if member.spec != best.spec:
            log.info("%s is another network than %s and is not averaged", member.name, best.name)
            continue
        model = _averaged([*kept, member], train)
        loss = cross_entropy(model, best.spec, validation)
        log.info("averaged with %s: loss %.4f, before %.4f", member.name, loss, soup.loss)
        if loss < soup.loss:
            kept.append(member)
            soup = Member("soup", model, best.spec, loss)
    return soup, [member.name for member in kept]


def cross_entropy(model: Classifier, spec: ModelSpec, split: "ShardSplit") -> float:
    """Of the network on a split, in nats per image."""
    logits = torch.from_numpy(predict(model, split.images, spec)).double()
    return float(F.cross_entropy(logits, torch.from_numpy(np.array(split.labels))))


def write_ensemble(
    directory: Path, kind: str, members: Sequence[Member], made_of: Sequence[str]
) -> None:
    """Write the members (of a soup: the one network) and what they were made of."""
    for number, member in enumerate(members):
        save_model(directory / f"member-{number}", member.model, member.spec)
    names = {"kind": kind, "members": len(members), "made_of": list(made_of)}
    write_json(directory / INDEX, names)


def load_members(directory: Path, config: Ensemble) -> list[Member]:
    """The networks of the ensemble in `directory`, whose losses are not kept (NaN).

    Raises TrainingError when it is missing, damaged, or not of the kind that `config` asks for.
    """
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        kind, count = index["kind"], int(index["members"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"no ensemble in {directory} ({error}); run `dvc repro ensemble`"
        ) from None
    if kind != config.kind:
        raise TrainingError(
            f"{directory} holds an ensemble of kind {kind}, ensemble.kind is {config.kind}; run "
            "`dvc repro ensemble`"
        )
    places = [directory / f"member-{number}" for number in range(count)]
    return [Member(place.name, *load_model(place), math.nan) for place in places]


def _averaged(members: Sequence[Member], train: "ShardSplit") -> Classifier:
    """The mean of the weights, batch norms measured anew; whole numbers are the first one's."""
    states = [member.model.state_dict() for member in members]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    model = copy.deepcopy(members[0].model)
    model.load_state_dict(mean)
    spec = members[0].spec
    step = max(1, len(train) // _STATISTICS_IMAGES)
    rows = np.arange(0, len(train), step)
    parts = np.array_split(rows, max(1, len(rows) // _BATCH))
    margin = (train.images.shape[1] - spec.size) // 2
    middle = slice(margin, margin + spec.size)
    with torch.no_grad():
        batches = read_ahead(train.images, parts)
        update_bn((normalise(batch[:, middle, middle], spec) for batch in batches), model)
    return model.eval()


def _normalised_anew(given: ModelSpec, wanted: ModelSpec) -> nn.Module:
    same = (given.mean, given.std) == (wanted.mean, wanted.std)
    return cast(nn.Module, nn.Identity() if same else _Rescaled(given, wanted))
