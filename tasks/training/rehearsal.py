"""The training that `dvc repro train` would do, to be tried out: nothing is written."""

from collections.abc import Callable

import torch

from tasks.data.shards import open_shards
from tasks.params import load_params
from tasks.schema import Train
from tasks.training.best import BEST, apply_best
from tasks.training.loop import choose_device
from tasks.training.models import Moments, build, channel_moments, spec_for
from tasks.training.trainer import Trainer

Rehearsal = Callable[[Train], Trainer]


def rehearsal() -> tuple[Train, Rehearsal]:
    """The train section, with the sweep's best values if there are any, and what begins with one.

    What is called twice begins twice, with the same weights. Raises DataError without shards, and
    ParamsError or TrainingError for settings that do not work.
    """
    params, shards = load_params(), open_shards()
    config = apply_best(params.train) if BEST.exists() else params.train
    train, validation = shards.split("train"), shards.split("validation")
    moments: Moments = channel_moments(train.images)

    def begin(config: Train) -> Trainer:
        spec = spec_for(shards, config, moments)
        torch.manual_seed(config.seed)
        model = build(spec, config.weights).to(choose_device(config.device))
        return Trainer(model, train, validation, spec, config)

    return config, begin
