"""A torchvision data set by name, written out as class folders that keep its own test split."""

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.errors import DataError
from tasks.files import remove_leftovers, sha256_json, write_directory
from tasks.locks import waited_for
from tasks.progress import Progress
from tasks.schema import TorchvisionSource

#: Data set → split of ours → the arguments that choose it. Those of images with one label.
_BY_TRAIN = {"train": {"train": True}, "test": {"train": False}}
_TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_TWO, "validation": {"split": "val"}}
DATASETS: dict[str, dict[str, dict[str, Any]]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), _BY_TRAIN),
    **dict.fromkeys(("Food101", "GTSRB", "STL10", "SVHN"), _TWO),
    **dict.fromkeys(("DTD", "FGVCAircraft", "Flowers102", "PCAM"), _THREE),
    "Imagenette": {"train": {"split": "train"}, "validation": {"split": "val"}},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
}

log = logging.getLogger(__name__)


def written_out(source: TorchvisionSource, root: Path, cache: Path) -> Path:
    """The folder below `cache` with the images of the data set as PNG files, written once.

    `root` is where torchvision keeps its files; they are fetched when they are not there.
    Raises DataError for an unknown name, or files that are neither there nor to be had.
    """
    parts = DATASETS[source.dataset]
    target = cache / f"{source.dataset}-{sha256_json(str(root.resolve()))[:8]}"
    with waited_for(cache / ".lock", f"another process writes out {source.dataset}"):
        if not target.exists():
            remove_leftovers(target)
            write_directory(target, lambda folder: _write_all(source.dataset, parts, root, folder))
    return target


def _write_all(name: str, parts: dict[str, dict[str, Any]], root: Path, folder: Path) -> None:
    for split, arguments in parts.items():
        _write(_opened(name, root, arguments), folder / split, split)


def _opened(name: str, root: Path, arguments: dict[str, Any]) -> Any:
    from torchvision import datasets

    make = getattr(datasets, name)
    try:
        return make(root=str(root), **arguments)
    except (RuntimeError, OSError):  # the files are not there, or not whole
        log.info("%s is not in %s; fetching it", name, root)
    if "download" not in inspect.signature(make).parameters:
        raise DataError(f"torchvision cannot fetch {name}; put its files into {root}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        return make(root=str(root), download=True, **arguments)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name} is not in {root} and cannot be fetched ({error}). Without a network, put "
            f"the files that torchvision.datasets.{name} expects into {root}"
        ) from None


def _write(dataset: Any, folder: Path, split: str) -> None:
    with Progress(f"wrote out {split}:", len(dataset)) as progress:
        for number, (image, label) in enumerate(_labelled(dataset)):
            target = folder / label
            target.mkdir(parents=True, exist_ok=True)
            image.save(target / f"{number:06d}.png")
            progress.add(1)


def _labelled(dataset: Any) -> Iterator[tuple[Any, str]]:
    names = getattr(dataset, "classes", None)
    for image, number in dataset:
        label = str(names[number]) if names else str(number)
        yield image, label.replace("/", "_")
