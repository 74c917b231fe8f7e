"""Reads the weights that train.weights names, whatever holds them.

"imagenet" is torchvision's, from torch's cache or the network. A path is a model directory as
`train` writes it, a release bundle (whose training run's checkpoint is then taken), a checkpoint,
or a file of weights (safetensors, or torch.save) under our names or torchvision's.
"""

import errno
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from tasks.errors import TrainingError
from tasks.files import sha256
from tasks.training.checkpoint import read_checkpoint
from tasks.training.models import SPEC, WEIGHTS, ModelSpec

IMAGENET = "imagenet"


@dataclass(frozen=True)
class Start:
    """Weights by name, under our names or torchvision's, and their network's spec if known."""

    tensors: Mapping[str, Tensor]
    spec: ModelSpec | None


def read_start(weights: str) -> Start:
    """Read the weights at a path; raises TrainingError naming what is wrong with it."""
    path = _located(weights)
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except (ValueError, RuntimeError, KeyError, TypeError, EOFError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"train.weights: {path} holds no weights that can be read ({lines[0]}); give a model "
            f"directory ({WEIGHTS} and {SPEC}), a checkpoint, or a file of weights"
        ) from None


def read_imagenet(architecture: str) -> Mapping[str, Tensor]:
    """ImageNet weights from torch's cache, or from the network into the cache.

    Raises TrainingError when they are in neither, or when there are none of `architecture`.
    """
    import torchvision

    if architecture == "resnet_small":
        raise TrainingError(
            "train.weights: resnet_small has no imagenet weights; set it to null or a path, or "
            "choose another train.architecture"
        )
    weights = torchvision.models.get_model_weights(architecture).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"imagenet weights of {architecture} are not at {file} and cannot be fetched "
            f"({error}); put {weights.url} there, or set train.weights to null"
        ) from None
    return state


def weights_digest(weights: str | None) -> str | None:
    """SHA-256 of the file that train.weights leads to; None where it names no path."""
    return None if weights is None or weights == IMAGENET else sha256(_located(weights))


def _located(weights: str) -> Path:
    """The file that a path leads to."""
    path = Path(weights).expanduser()
    if (path / "bundle.json").is_file():
        path = _checkpoint_of(path)
    elif path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        raise TrainingError(
            f"train.weights: {path} does not exist; give {IMAGENET}, or the path of a model "
            "directory, a bundle, a checkpoint or a file of weights"
        )
    return path


def _checkpoint_of(bundle: Path) -> Path:
    """The checkpoint of the run that a bundle came from: its own network is folded and smaller."""
    from tasks.bundle import open_bundle
    from tasks.params import load_settings

    settings = load_settings()
    lineage = open_bundle(bundle, settings).info.lineage
    path = settings.home / "checkpoints" / lineage.run_key / "checkpoint.pt"
    if not path.is_file():
        commit = lineage.git_commit or "COMMIT"
        raise TrainingError(
            f"train.weights: bundle {bundle} holds the deployed network, which cannot be trained "
            f"on, and its run's checkpoint {path} is not on this machine; fetch the trained one "
            f"with `dvc get . data/model --rev {commit} --out pretrained` and give pretrained"
        )
    return path


def _read_safetensors(path: Path) -> Start:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    beside = path.with_name(SPEC)
    known = path.name == WEIGHTS and beside.is_file()
    return Start(tensors, _spec(json.loads(beside.read_text("utf-8")) if known else None))


def _read_torch(path: Path) -> Start:
    """A checkpoint of ours, or what torch.save wrote: a state dict, bare or within a mapping."""
    own = read_checkpoint(path)
    if own is not None:
        if not own["best_weights"]:
            raise ValueError(
                "its run was stopped within its first epoch: run it on, or take another"
            )
        return Start(own["best_weights"], _spec(own.get("spec")))
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("neither a checkpoint nor what torch.save writes of tensors") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {str(k).removeprefix("module."): v for k, v in dict(found).items()}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError("not a mapping of names to tensors")
    return Start(tensors, None)


def _spec(values: Any) -> ModelSpec | None:
    try:
        return None if values is None else ModelSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{SPEC}: {first['loc'][0]}: {first['msg']}") from None
