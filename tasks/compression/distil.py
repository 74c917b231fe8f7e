"""Knowledge distillation: a smaller student learns what the teacher says.

The teacher sees the same augmented view as the student, and is asked for many epochs if
`patient` says so (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
consistent"). The methods are in soft_targets and feature_matching.
"""

from pathlib import Path

import torch

from tasks.compression.feature_matching import WithEmbedding
from tasks.compression.soft_targets import distillation_loss, heard
from tasks.compression.teacher import Teacher
from tasks.data.shards import ShardSplit
from tasks.schema import Distil, Train
from tasks.training.finetuning import whole
from tasks.training.loop import choose_device, fit
from tasks.training.losses import class_counts, training_loss
from tasks.training.models import Classifier, ModelSpec, build

Splits = tuple[ShardSplit, ShardSplit]


def distil(
    teacher: Classifier,
    spec: ModelSpec,
    splits: Splits,
    train: Train,
    distil: Distil,
    width: int,
    checkpoint: Path,
) -> tuple[Classifier, ModelSpec]:
    """A network of `distil.architecture`, trained from scratch under the teacher.

    `width` is that of a resnet_small. `splits` are training and validation; `train` gives
    optimiser, augmentation, loss of the labels and seed. Killed and called again with the same
    checkpoint, it goes on and ends the same. Raises TrainingError when training diverges, or the
    images do not suit the architecture.
    """
    student, student_spec = untrained(spec, distil, width, train.seed)
    epochs, patience = distil.epochs * distil.patient, train.patience * distil.patient
    config = train.model_copy(update={"epochs": epochs, "patience": patience})
    teach(student, teacher, (student_spec, splits), config, distil, checkpoint)
    return student, student_spec


def untrained(
    spec: ModelSpec, distil: Distil, width: int, seed: int
) -> tuple[Classifier, ModelSpec]:
    """The student before it has learnt anything: its size and speed are known already."""
    student_spec = spec.model_copy(
        update={
            "architecture": distil.architecture,
            "width": width,
            "depth": distil.depth,
            "activation": "default",
            "dropout": None,
            "stochastic_depth": None,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(student_spec), student_spec


def tuning(train: Train, epochs: int, lr: float) -> Train:
    """`train` for the fine-tuning of a network that has been trained: all epochs are made.

    While the rate rises such a network gets worse, for longer than `train.patience`, which would
    end the tuning before the rate has fallen.
    """
    return train.model_copy(update={"epochs": epochs, "lr": lr, "patience": epochs})


def teach(
    student: Classifier,
    teacher: Classifier,
    data: tuple[ModelSpec, Splits],
    train: Train,
    distil: Distil,
    checkpoint: Path,
) -> None:
    """Train `student` in place under `teacher` by `distil.method`, for `train.epochs`.

    `data` are the spec of the inputs and the splits. Both networks end on the CPU, in evaluation
    mode. Raises TrainingError when training diverges.
    """
    (spec, splits), config = data, whole(train)
    asked = Teacher(teacher)
    if heard(distil):
        asked.remember(splits[0], spec, config.augment.recipe, choose_device(config.device))
    counts = class_counts(splits[0].labels, len(spec.classes))
    hard = training_loss(config.imbalance, config.label_smoothing, counts)
    loss = distillation_loss(asked, distil, hard)
    network = student if distil.method != "features" else _matching(student, asked, spec, train)
    try:
        fit(network, *splits, spec, config, loss=loss, checkpoint=checkpoint)
    finally:
        teacher.cpu()
        student.cpu().eval()


def _matching(
    student: Classifier, teacher: Teacher, spec: ModelSpec, train: Train
) -> WithEmbedding:
    """The student with an adapter to the teacher's embedding, drawn from the seed."""
    own, wanted = Teacher(student).size(spec)[1], teacher.size(spec)[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        return WithEmbedding(student, own, wanted)
