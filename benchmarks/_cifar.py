"""CIFAR-10 as JPEG files in class folders, for the benchmarks that need it."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ARCHIVE = Path("../shared/datasets/cifar10.tar.gz")


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add --data: the archive, or the folder of train/<class>/*.jpg."""
    default = Path(os.environ.get("VISIONLOOP_CIFAR10", ARCHIVE))
    parser.add_argument("--data", type=Path, default=default, help="archive or folder")


def class_folders(data: Path, scratch: Path) -> Path:
    """The folder of class folders: `data` itself, its train folder, or unpacked from it."""
    if data.is_file():
        shutil.unpack_archive(data, scratch)
        data = scratch
    trains = sorted(data.rglob("train")) or [data]
    if not data.is_dir() or not any(trains[0].glob("*/*.jpg")):
        sys.exit(
            f"error: no CIFAR-10 class folders at {data}; give the archive or the folder of "
            "train/<class>/*.jpg with --data or VISIONLOOP_CIFAR10"
        )
    return trains[0]


def some_images(folder: Path, target: Path, count: int) -> Path:
    """A copy of the first `count` images of class folders, as many of each class."""
    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    for one in classes:
        (target / one.name).mkdir(parents=True)
        for file in sorted(one.iterdir())[: count // len(classes)]:
            shutil.copy(file, target / one.name)
    return target


def test_set(images: Path) -> tuple[Any, Any]:
    """All test images, uint8 N×32×32×3, and their labels, int64 N."""
    folders = sorted((images / "test").iterdir())
    files = [(file, label) for label, one in enumerate(folders) for file in sorted(one.iterdir())]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files])
    return pixels, np.array([label for _, label in files])


def images_folder(data: Path, scratch: Path) -> Path:
    """The folder `images` of class folders of magnetic tiles, `data` itself or unpacked from it."""
    if data.is_file():
        shutil.unpack_archive(data, scratch)
        data = scratch / "images"
    if not any(data.glob("*/*.jpg")):
        sys.exit(f"error: no class folders of JPEGs at {data}; give magnetic tiles with --tiles")
    return data
