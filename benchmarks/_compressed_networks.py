"""Networks for photographs, trained on CIFAR-10 enlarged and compressed by our own step."""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._cifar import class_folders
from benchmarks._shards import shards_of
from tasks.compression.candidates import Results
from tasks.compression.compress import compress
from tasks.compression.context import Context
from tasks.data.shards import Shards, open_shards
from tasks.data.sources.folders import find_split_files
from tasks.params import load_params
from tasks.schema import Params, Train
from tasks.training.loop import fit
from tasks.training.models import (
    Classifier,
    ModelSpec,
    build,
    channel_moments,
    load_model,
    save_model,
    spec_for,
)

PRESET = Path("conf/presets/photo.yaml")
SIZE, SMALLER, SEED, BATCH = 224, 96, 0, 32
BUDGET, CALIBRATION = 0.005, 128


def enlarged_shards(arguments: argparse.Namespace, scratch: Path, keep: Path, side: int) -> Shards:
    """CIFAR-10 through our own steps, enlarged to `side`."""
    target = keep / f"shards-{side}-{arguments.images}-{arguments.test}"
    if target.exists():
        return open_shards(target)
    cifar = class_folders(arguments.data, scratch / "cifar").parent
    images = scratch / f"images-{side}"
    for label in sorted(folder.name for folder in (cifar / "train").iterdir()):
        each = arguments.images // 10
        for number, file in enumerate(sorted((cifar / "train" / label).glob("*.jpg"))[:each]):
            _copy(file, images / ("val" if number % 5 == 0 else "train") / label)
        for file in sorted((cifar / "test" / label).glob("*.jpg"))[: arguments.test // 10]:
            _copy(file, images / "test" / label)
    values = {"prepare.size": side, "prepare.resize": "stretch"}
    return shards_of(find_split_files(images), images, load_params(PRESET, values), target)


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def trained(
    architecture: str, shards: Mapping[int, Shards], arguments: argparse.Namespace, folder: Path
) -> tuple[Classifier, ModelSpec]:
    """The network at 224×224, trained unless it is there."""
    if (folder / "model").exists():
        return load_model(folder / "model")
    weights: str | None = None
    for side, epochs, lr in (
        (SMALLER, arguments.epochs, 0.05),
        (SIZE, arguments.fine_epochs, 0.01),
    ):
        config = _train(load_params(PRESET), architecture, epochs, lr)
        train, validation = (shards[side].split(name) for name in ("train", "validation"))
        spec = spec_for(shards[side], config, channel_moments(train.images))
        torch.manual_seed(SEED)
        model = build(spec, weights)
        fit(model, train, validation, spec, config)
        weights = str(folder / f"model-{side}")
        save_model(Path(weights), model, spec)
    Path(str(weights)).rename(folder / "model")
    return load_model(folder / "model")


def _train(params: Params, architecture: str, epochs: int, lr: float) -> Train:
    values: dict[str, Any] = params.train.model_dump()
    values |= {"architecture": architecture, "epochs": epochs, "patience": epochs, "seed": SEED}
    values |= {"optimizer": "sgd", "lr": lr, "weight_decay": 5e-4, "batch_size": 32}
    values |= {"precision": "bf16"}  # half the time at these sizes where the CPU has it
    values["augment"] |= {"flip": True, "preset": "light"}
    return Train.model_validate(values)


def compressed(
    model: Classifier,
    spec: ModelSpec,
    shards: Shards,
    arguments: argparse.Namespace,
    folder: Path,
) -> tuple[Results, Path]:
    """What our step makes and chooses, and the folder of its graphs."""
    params = load_params(PRESET)
    values: dict[str, Any] = params.compress.model_dump() | {"latency_runs": arguments.runs}
    values["distil"] |= {
        "architecture": "resnet_small",
        "widths": [arguments.width],
        "depth": 1,
        "epochs": arguments.students,
    }
    values["prune"] |= {"ratios": [0.5], "epochs": arguments.prune_epochs, "lr": 0.01, "steps": 1}
    values["quantize"] |= {"calibration_images": CALIBRATION}
    work = folder / "compress"
    context = Context(
        teacher=model,
        spec=spec,
        train=shards.split("train"),
        validation=shards.split("validation"),
        training=_train(params, spec.architecture, arguments.students, 0.05),
        params=type(params.compress).model_validate(values),
        folder=work / "graphs",
        work=work,
        budget=params.budget.model_copy(update={"max_accuracy_drop": BUDGET, "min_agreement": 0.0}),
    )
    context.folder.mkdir(parents=True, exist_ok=True)
    assert context.budget is not None
    return compress(context, context.budget, BATCH), context.folder
