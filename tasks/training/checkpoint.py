"""Checkpoints of one training run: one file, replaced atomically, epoch by epoch and within.

A checkpoint (its SHA-256, then what torch saved) is taken up only by the run that wrote it: the
same network and starting weights, settings and images. Another, or a damaged one, means
starting over.
"""

import hashlib
import io
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.files import atomic_write, remove_leftovers

State = dict[str, Any]
_DIGEST = hashlib.sha256().digest_size
_SHARE = 0.02  # of the time that checkpoints may take
log = logging.getLogger(__name__)


class Checkpoints:
    """When and where the checkpoints of one run are written; without a path, nowhere.

    One is due `seconds` after the last within an epoch, and at the end of every epoch; but
    only while all of them together, with one more that takes as long as the last, take no more
    than 2 % of the time since the start.
    """

    def __init__(self, path: Path | None, fingerprint: str, seconds: float) -> None:
        self.path = path
        self._fingerprint, self._seconds = fingerprint, seconds
        self._start = self._last = time.monotonic()
        self._took = self._spent = 0.0

    def load(self) -> State | None:
        """The state to go on from, or None; removes what a killed writer left half-written."""
        if self.path is None:
            return None
        remove_leftovers(self.path)
        return load_checkpoint(self.path, self._fingerprint)

    def due(self, *, epoch_ended: bool = False) -> bool:
        """Whether it is time for a checkpoint."""
        now, least = time.monotonic(), 0.0 if epoch_ended else self._seconds
        affordable = self._spent + self._took <= _SHARE * (now - self._start)
        return self.path is not None and affordable and now - self._last >= least

    def save(self, state: State) -> None:
        """Write a checkpoint now."""
        if self.path is None:
            return
        started = time.monotonic()
        save_checkpoint(self.path, self._fingerprint, state)
        self._last = time.monotonic()
        self._took = self._last - started
        self._spent += self._took


def save_checkpoint(path: Path, fingerprint: str, state: State) -> None:
    """Replace the checkpoint; on a full disk OSError, and the last good one stays."""
    buffer = io.BytesIO()  # torch would turn a full disk into a RuntimeError
    torch.save({"fingerprint": fingerprint, **state}, buffer)
    data = buffer.getbuffer()
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


def random_state(device: torch.device) -> State:
    """Where torch's generators are: the CPU's, and a CUDA device's own."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: State, device: torch.device) -> None:
    """Take up what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
