"""Checkpoints of one training run: one file, replaced atomically after every epoch.

A checkpoint (its SHA-256, then what torch saved) is taken up only by the run that wrote it: the
same network and starting weights, settings and images. Another, or a damaged one, means
starting over.
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.files import atomic_write

State = dict[str, Any]
_DIGEST = hashlib.sha256().digest_size
log = logging.getLogger(__name__)


def save_checkpoint(path: Path, fingerprint: str, state: State) -> None:
    """Replace the checkpoint; on a full disk OSError, and the last good one stays."""
    buffer = io.BytesIO()  # torch would turn a full disk into a RuntimeError
    torch.save({"fingerprint": fingerprint, **state}, buffer)
    data = buffer.getvalue()
    try:
        with atomic_write(path) as stream:
            stream.write(hashlib.sha256(data).digest())
            stream.write(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def load_checkpoint(path: Path, fingerprint: str) -> State | None:
    """The state of the run with this fingerprint, or None when there is none to take up."""
    try:
        state = read_checkpoint(path)
    except FileNotFoundError:
        return None
    if state is None:
        log.warning("checkpoint %s is damaged; starting over", path)
        return None
    if state.pop("fingerprint") != fingerprint:
        log.warning("checkpoint %s is of another run; starting over", path)
        return None
    return state


def read_checkpoint(path: Path) -> State | None:
    """What any run saved there, or None when that is damaged, or something else."""
    content = path.read_bytes()
    digest, data = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        return None
    state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def fingerprint(model: nn.Module, settings: object, arrays: Iterable[npt.NDArray[Any]]) -> str:
    """SHA-256 over the weights as they are, JSON-able settings and arrays."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
