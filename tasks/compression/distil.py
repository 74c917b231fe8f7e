"""Knowledge distillation: a smaller student learns the teacher's soft targets.

Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network". The teacher sees
the same augmented view as the student (Beyer et al. 2022, "Knowledge distillation: A good
teacher is patient and consistent").
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.data.shards import ShardSplit
from tasks.schema import Distil, Train
from tasks.training.finetuning import whole
from tasks.training.loop import Loss, fit
from tasks.training.models import Classifier, ModelSpec, build


def distil(
    teacher: Classifier,
    spec: ModelSpec,
    splits: tuple[ShardSplit, ShardSplit],
    train: Train,
    distil: Distil,
    checkpoint: Path,
) -> tuple[Classifier, ModelSpec]:
    """A resnet_small of `distil.width`, trained from scratch under the teacher.

    `splits` are training and validation; `train` gives optimiser, augmentation and seed.
    Killed and called again with the same checkpoint, it goes on and ends the same. Raises
    TrainingError when training diverges.
    """
    own = {"activation": "default", "dropout": None, "stochastic_depth": None}
    update = {"architecture": "resnet_small", "width": distil.width, **own}
    student_spec = spec.model_copy(update=update)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        student = build(student_spec)
    loss = distillation_loss(teacher, distil.temperature, distil.alpha)
    config = whole(train).model_copy(update={"epochs": distil.epochs})
    fit(student, *splits, student_spec, config, loss=loss, checkpoint=checkpoint)
    return student, student_spec


def distillation_loss(teacher: Classifier, temperature: float, alpha: float) -> Loss:
    """alpha·T²·KL(teacher_T ‖ student_T) + (1 − alpha)·cross-entropy, in nats per image.

    T² keeps the gradients of the soft targets of one size whatever the temperature.
    """
    teacher.eval()

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher.to(inputs.device)(inputs)
        soft = F.kl_div(
            F.log_softmax(logits / temperature, 1),
            F.log_softmax(wanted / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(logits, labels)

    return loss
