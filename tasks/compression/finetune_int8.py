"""Quantization-aware fine-tuning: a float network learns to bear int8.

The network with int8 simulated (see simulated_int8) is fine-tuned under distillation from the
teacher, and exported and quantized like any other. torchao and NNCF train so too, but the graphs
they give leave most or all convolutions to ONNX Runtime in float: see docs/compression.md.
"""

import copy
from pathlib import Path

import numpy as np

from tasks.compression.distil import Splits, teach, tuning
from tasks.compression.quantize import draw
from tasks.compression.simulated_int8 import simulate_int8
from tasks.pixels import crop
from tasks.schema import Compress, RangeMethod, Train
from tasks.training.models import Classifier, ModelSpec


def finetune_int8(
    model: Classifier,
    teacher: Classifier,
    data: tuple[ModelSpec, Splits],
    train: Train,
    params: Compress,
    method: RangeMethod,
    checkpoint: Path,
) -> Classifier:
    """A copy of `model`, fine-tuned for `compress.quantize.finetune_epochs` under `teacher`.

    `data` are the spec of the inputs and the splits, training and validation; `train` gives
    optimiser, augmentation and seed, `method` the ranges of activations. Killed and called again
    with the same checkpoint, it goes on and ends the same. Raises CompressionError for a vision
    transformer, and TrainingError when tuning diverges.
    """
    (spec, splits), settings = data, params.quantize
    rows, _ = draw(len(splits[0]), settings.calibration_images, params.seed)
    images = np.ascontiguousarray(crop(splits[0].images[rows], spec.size))
    tuned = copy.deepcopy(model).cpu().eval()
    simulated = simulate_int8(tuned, spec, images, method)
    config = tuning(train, settings.finetune_epochs, settings.finetune_lr)
    teach(simulated, teacher, data, config, params.distil, checkpoint)
    return tuned.eval()
