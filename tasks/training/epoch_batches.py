"""The batches of an epoch: what is in each step, read ahead, changed, mixed, on the device."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from tasks.schema import Train
from tasks.training import distributed
from tasks.training.health import Rows
from tasks.training.learner import Batch
from tasks.training.models import ModelSpec
from tasks.training.reading import read_ahead
from tasks.training.sampling import EpochOrder
from tasks.training.to_device import resident, sent

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

Step = list[Rows]  # the rows of each of a step's batches


class EpochBatches:
    """What `steps` optimizer steps an epoch are taken on; `shown` images in all.

    Raw images live on a CUDA device where they fit (see `resident`) and are chosen there.

    Args:
        train: the training split.
        spec: the network that they are for.
        config: the train section.
        device: where the network is.
    """

    def __init__(
        self, train: "ShardSplit", spec: ModelSpec, config: Train, device: torch.device
    ) -> None:
        # Here, not at the top: torchvision takes as long to import as torch itself, and
        # `predict` does without it.
        from tasks.training.augmentation import augmentation
        from tasks.training.mixing import mixing

        self._train, self._config, self._device = train, config, device
        self._augment = augmentation(spec, config.augment.recipe)
        self._mix = mixing(config.augment.recipe, len(spec.classes))
        self._labels = sent(torch.from_numpy(np.array(train.labels)), device)
        self._resident = resident(train.images, device)
        self._order = EpochOrder(train.labels, config.imbalance.sampling, train.weights)
        self.shown = len(self._order)
        # Batches of batch_size or a little more: a last batch of one image would break
        # batch norm, and no image is left out.
        self.steps = max(1, self.shown // (config.batch_size * config.accumulate))

    def draw(self) -> list[Step]:
        """The steps of an epoch, from torch's global random state."""
        return [self._batches(rows) for rows in self._order.draw().tensor_split(self.steps)]

    def read(self, steps: list[Step]) -> Iterator[Tensor]:
        """The images of each batch of the steps, this rank's part of them, one batch ahead."""
        own = [rows[distributed.own_rows(len(rows))] for batches in steps for rows in batches]
        if self._resident is None:
            return read_ahead(self._train.images, own)
        there, device = self._resident, self._device
        return (there.index_select(0, sent(torch.from_numpy(rows), device)) for rows in own)

    def prepared(self, step: Step, images: Iterator[Tensor]) -> Iterator[Batch]:
        """The network's inputs and targets of a step, whose images come next: this rank's part.

        The whole batch is changed and mixed, with the draws of one process.
        """
        for rows in step:
            with record_function("read"):
                own = next(images)
            yield self._batch(rows, own)

    def _batches(self, rows: Tensor) -> Step:
        """A step's rows as `config.accumulate` batches; fewer where they would be too small."""
        count = max(1, min(self._config.accumulate, len(rows) // self._config.batch_size))
        return [batch.numpy() for batch in rows.tensor_split(count)]

    def _batch(self, rows: Rows, images: Tensor) -> Batch:
        with record_function("augment"):
            chosen = sent(torch.from_numpy(rows), self._device)
            labels = self._labels.index_select(0, chosen)
            batch = distributed.gathered(sent(images, self._device), len(rows))
            inputs, targets = self._mix(self._augment(batch), labels)
            own = distributed.own_rows(len(rows))
            return inputs[own], targets[own]
