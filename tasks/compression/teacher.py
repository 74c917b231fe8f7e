"""What the teacher says of the views that its student sees: logits and embedding.

Where every epoch shows an image the same way, the teacher is asked once, before the first epoch,
and remembers. Its answers are found by the inputs themselves, so none can be another image's.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from tasks.data.shards import ShardSplit
from tasks.schema import Recipe
from tasks.training.models import Classifier, ModelSpec
from tasks.training.reading import read_ahead

_BATCH = 64
_MOST_BYTES = 1 << 30  # that remembered answers may take
_SETTINGS = ("policy_operations", "policy_magnitude", "mix_probability")  # nothing by themselves
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """Of n images: logits float n×C, embedding float n×D."""

    logits: Tensor
    embedding: Tensor


class Teacher:
    """A trained classifier that is asked and does not learn."""

    def __init__(self, model: Classifier) -> None:
        self.model = model.eval()
        self._known: Answer | None = None
        self._rows: dict[tuple[int, int], int] = {}

    def __call__(self, inputs: Tensor) -> Answer:
        """The answer to normalised inputs, float n×3×S×S, on their device."""
        rows = [self._rows.get(key) for key in _keys(inputs)] if self._rows else [None]
        if self._known is None or None in rows:
            return self._answer(inputs)
        index = torch.tensor(rows, device=self._known.logits.device)
        return Answer(self._known.logits[index], self._known.embedding[index])

    def remember(
        self, split: ShardSplit, spec: ModelSpec, recipe: Recipe, device: torch.device
    ) -> None:
        """Ask for all training images now, where that is valid; the log says why when it is not.

        In a fixed order, so that a run that is taken up after a kill is taught the same.
        """
        reason = changes(split, spec, recipe) or self._too_much(split, spec)
        if reason:
            log.info("the teacher is asked anew in every epoch: %s", reason)
            return
        answers: list[Answer] = []
        keys: list[tuple[int, int]] = []
        for inputs in _as_they_are(split, spec, recipe, device):
            keys += _keys(inputs)
            answers.append(self._answer(inputs))
        self._rows = {key: row for row, key in enumerate(keys)}
        self._known = Answer(
            torch.cat([answer.logits for answer in answers]),
            torch.cat([answer.embedding for answer in answers]),
        )
        log.info("the teacher was asked once for each of %d training images", len(split))

    def size(self, spec: ModelSpec) -> tuple[int, int]:
        """How many logits and how many numbers of an embedding it gives."""
        device = next(self.model.parameters()).device
        answer = self._answer(torch.zeros(1, 3, spec.size, spec.size, device=device))
        return answer.logits.shape[1], answer.embedding.shape[1]

    @torch.no_grad()
    def _answer(self, inputs: Tensor) -> Answer:
        embedding = self.model.to(inputs.device).embed(inputs)
        return Answer(self.model.head(embedding).float(), embedding.float())

    def _too_much(self, split: ShardSplit, spec: ModelSpec) -> str | None:
        size = 4 * sum(self.size(spec)) * len(split)
        return f"its answers would take {size / 1e9:.1f} GB" if size > _MOST_BYTES else None


def changes(split: ShardSplit, spec: ModelSpec, recipe: Recipe) -> str | None:
    """What shows a training image in another way each time, or None when nothing does."""
    if split.images.shape[1] != spec.size:
        return "prepare.margin cuts a random part out of every image"
    still = Recipe()
    names = [field.name for field in fields(Recipe) if field.name not in _SETTINGS]
    moving = [name for name in names if getattr(recipe, name) != getattr(still, name)]
    return f"train.augment changes the images ({', '.join(moving)})" if moving else None


def _as_they_are(
    split: ShardSplit, spec: ModelSpec, recipe: Recipe, device: torch.device
) -> Iterator[Tensor]:
    """The training images in their order, in batches, bit for bit as training will show them."""
    from tasks.training.augmentation import augmentation  # torchvision: seconds, as for training

    shown = augmentation(spec, recipe)
    starts = range(0, len(split), _BATCH)
    parts = [slice(start, min(start + _BATCH, len(split))) for start in starts]
    for images in read_ahead(split.images, parts):
        yield shown(images.to(device))


def _keys(inputs: Tensor) -> list[tuple[int, int]]:
    """Two 64-bit hashes of the bits of each input: sums of its words times fixed odd numbers."""
    words = inputs.contiguous().view(torch.int32).flatten(1)
    factors = _factors(words.shape[1]).to(words.device)
    first, second = ((words * row).sum(1).tolist() for row in factors)
    return list(zip(first, second, strict=True))


@lru_cache(maxsize=2)
def _factors(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (2, count), generator=generator) * 2 + 1
