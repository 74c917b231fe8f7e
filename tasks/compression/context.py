"""What candidates are made of."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

from tasks.data.shards import ShardSplit
from tasks.runtime import GPU, Floats, RuntimeName, missing
from tasks.schema import Budget, Compress, Train
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec

Network = tuple[Classifier, ModelSpec]


@dataclass(frozen=True)
class Context:
    """The trained network, the splits it may be compressed on, and the settings.

    `folder` takes the ONNX files, `work` the checkpoints. `mentor` is the ensemble that the
    students learn from, if there is one; `soup` the network of averaged weights, which is a
    candidate of its own. Of `budget`, int8 keeps accuracy and agreement by layers that go back to
    float; without one all layers are int8.
    """

    teacher: Classifier
    spec: ModelSpec
    train: ShardSplit
    validation: ShardSplit
    training: Train
    params: Compress
    folder: Path
    work: Path
    mentor: Classifier | None = None
    soup: Network | None = None
    budget: Budget | None = None

    @cached_property
    def wanted(self) -> Floats:
        """Validation logits of the fp32 PyTorch model."""
        return predict(self.teacher, self.validation.images, self.spec)

    @property
    def runtimes(self) -> list[RuntimeName]:
        """Those that candidates run on, ONNX Runtime first."""
        unwanted: set[RuntimeName] = set() if self.params.openvino else {"openvino"}
        unwanted |= set() if self.params.gpu else set(GPU)
        names = (name for name in get_args(RuntimeName) if name not in unwanted)
        return [name for name in names if missing(name) is None]

    @property
    def splits(self) -> tuple[ShardSplit, ShardSplit]:
        """Training and validation."""
        return self.train, self.validation
