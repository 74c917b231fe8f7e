"""Packed shards: the images of a split as one array on disk. Needs numpy only, unless encoded.

<split>_images.npy      uint8 N×S×S×3, memory-mapped; of the training split with the margin, or
<split>_images-*.arrow  the same, encoded (see tasks.data.encoded)
<split>_labels.npy      int64 [N], an index into `classes`
<split>_statistics.npy  float32 N×5, tasks.pixels.STATISTICS of the images before resizing
<split>_hashes.npy      S32 [N], the manifest's pixel hash
<split>_folds.npy       int64 [N], the fold of cross-validation; only with split.folds, not of test
<split>_paths.json      N paths, as in the manifest
<split>_weights.npy     float64 [N], how much an image counts; only when a source says so
shards.json             classes, input contract, counts, SHA-256 of every file
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.bundle import InputContract
from tasks.data.encoded import EncodedImages
from tasks.data.parallel import cores
from tasks.errors import DataError
from tasks.files import sha256, write_json
from tasks.pixels import Images

SHARDS = Path("data/shards")
INDEX = "shards.json"
SPLITS = ("train", "validation", "test")
_SMALL = ("labels", "statistics", "hashes")


@dataclass(frozen=True)
class ShardSplit:
    """One split; row i of every field is the same image.

    The images are read only, and where they are touched. Those of the training split have side
    size + margin; those of the others are the network's input.
    """

    images: Images
    labels: npt.NDArray[np.int64]
    statistics: npt.NDArray[np.float32]
    hashes: npt.NDArray[np.bytes_]
    paths: list[str]
    weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Shards:
    """A verified directory of shards; `digest` (SHA-256) stands for all their bytes."""

    path: Path
    classes: tuple[str, ...]
    contract: InputContract
    files: tuple[str, ...]
    digest: str

    def split(self, name: str) -> ShardSplit:
        """A split by name; the images stay on disk until they are touched (read-only)."""
        if name not in SPLITS:
            raise DataError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        paths = json.loads((self.path / f"{name}_paths.json").read_text(encoding="utf-8"))
        small = {kind: _load(self.path / f"{name}_{kind}.npy") for kind in _SMALL}
        weights = f"{name}_weights.npy"
        if weights in self.files:
            small["weights"] = _load(self.path / weights)
        return ShardSplit(images=self._images(name, len(paths)), paths=paths, **small)

    def folds(self, name: str) -> npt.NDArray[np.int64]:
        """The fold of each image of a split, int64 [N]; DataError when there are no folds."""
        file = f"{name}_folds.npy"
        if file not in self.files:
            raise DataError(
                f"{self.path} holds no folds; set split.folds to their number and run "
                "`dvc repro prepare`"
            )
        return _load(self.path / file)

    def _images(self, name: str, count: int) -> Images:
        raw = f"{name}_images.npy"
        if raw in self.files:
            images: Images = np.load(self.path / raw, mmap_mode="r", allow_pickle=False)
            return images
        encoded = [self.path / file for file in self.files if file.startswith(f"{name}_images-")]
        return EncodedImages(encoded, count, side_of(name, self.contract))


def side_of(split: str, contract: InputContract) -> int:
    """The side of a split's packed images: training takes random parts, so it has the margin."""
    return contract.size + (contract.margin if split == "train" else 0)


def open_shards(path: Path = SHARDS) -> Shards:
    """Verify the SHA-256 of every file, on every core, then open.

    Raises DataError naming the file that is missing, truncated, altered or does not belong:
    `dvc checkout` alone can restore a damaged cache object without a word.
    """
    index = _read_index(path)
    found = _digests([path / name for name in index["sha256"]])
    for (name, digest), actual in zip(index["sha256"].items(), found, strict=True):
        _verify(path / name, digest, actual)
    return Shards(
        path=path,
        classes=tuple(index["classes"]),
        contract=InputContract.model_validate(index["input"]),
        files=tuple(index["sha256"]),
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


def _digests(files: Sequence[Path]) -> list[str | OSError]:
    """The SHA-256 of each file, or why it cannot be read; hashing runs outside Python's lock."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(_digest, files))


def _digest(file: Path) -> str | OSError:
    try:
        return sha256(file)
    except OSError as error:
        return error


def _verify(file: Path, digest: str, actual: str | OSError) -> None:
    if isinstance(actual, OSError):
        raise DataError(f"{file} cannot be read ({actual.strerror}); {_mend(file.parent)}")
    if actual != digest:
        raise DataError(
            f"{file} is truncated or was altered: its SHA-256 is {actual[:12]}…, "
            f"{INDEX} says {digest[:12]}…; {_mend(file.parent)}"
        )


def _mend(path: Path) -> str:
    return f"remove {path} and run `dvc repro --force --single-item prepare`, which writes it anew"
