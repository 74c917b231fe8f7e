"""Packed shards: the images of a split as one memory-mapped array. Needs numpy only.

<split>_images.npy      uint8 N×S×S×3
<split>_labels.npy      int64 [N], an index into `classes`
<split>_statistics.npy  float32 N×5, tasks.pixels.STATISTICS of the images before resizing
<split>_hashes.npy      S32 [N], the manifest's pixel hash
<split>_paths.json      N paths, relative to ingest.path
shards.json             classes, input contract, counts, SHA-256 of every file
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.bundle import InputContract
from tasks.errors import DataError
from tasks.files import sha256, write_json
from tasks.pixels import Pixels

SHARDS = Path("data/shards")
INDEX = "shards.json"
SPLITS = ("train", "validation", "test")
_SMALL = ("labels", "statistics", "hashes")


@dataclass(frozen=True)
class ShardSplit:
    """One split; row i of every field is the same image."""

    images: Pixels
    labels: npt.NDArray[np.int64]
    statistics: npt.NDArray[np.float32]
    hashes: npt.NDArray[np.bytes_]
    paths: list[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Shards:
    """A verified directory of shards; `digest` (SHA-256) stands for all their bytes."""

    path: Path
    classes: tuple[str, ...]
    contract: InputContract
    digest: str

    def split(self, name: str) -> ShardSplit:
        """A split by name; the images stay on disk until they are touched (read-only)."""
        if name not in SPLITS:
            raise DataError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        images = np.load(self.path / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
        paths = json.loads((self.path / f"{name}_paths.json").read_text(encoding="utf-8"))
        small = {kind: _load(self.path / f"{name}_{kind}.npy") for kind in _SMALL}
        return ShardSplit(images=images, paths=paths, **small)


def open_shards(path: Path = SHARDS) -> Shards:
    """Verify the SHA-256 of every file, then open.

    Raises DataError naming the file that is missing, truncated, altered or does not belong:
    `dvc checkout` alone can restore a damaged cache object without a word.
    """
    index = _read_index(path)
    for name, digest in index["sha256"].items():
        _verify(path / name, digest)
    return Shards(
        path=path,
        classes=tuple(index["classes"]),
        contract=InputContract.model_validate(index["input"]),
        digest=sha256(path / INDEX),
    )


def write_index(path: Path, classes: Iterable[str], contract: InputContract) -> None:
    """Write shards.json for the files already in `path`; the last thing written."""
    files = sorted(file for file in path.iterdir() if file.name != INDEX)
    counts = {name: len(_load(path / f"{name}_labels.npy")) for name in SPLITS}
    index = {
        "classes": list(classes),
        "input": contract.model_dump(),
        "counts": counts,
        "sha256": {file.name: sha256(file) for file in files},
    }
    write_json(path / INDEX, index)


def _load(path: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        if not {"classes", "input", "counts", "sha256"} <= set(index):
            raise ValueError("keys are missing")
    except FileNotFoundError:
        raise DataError(f"no shards at {path}; run `dvc repro prepare`") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path / INDEX} is damaged ({error}); {_mend(path)}") from None
    return dict(index)


def _verify(file: Path, digest: str) -> None:
    try:
        actual = sha256(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); {_mend(file.parent)}") from None
    if actual != digest:
        raise DataError(
            f"{file} is truncated or was altered: its SHA-256 is {actual[:12]}…, "
            f"{INDEX} says {digest[:12]}…; {_mend(file.parent)}"
        )


def _mend(path: Path) -> str:
    return f"remove {path} and run `dvc repro --force --single-item prepare`, which writes it anew"
