"""Files → manifest rows: hashes, size, statistics, or the reason one cannot be read.

A file is read once and decoded alone; what is measured is measured for a chunk together.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from tasks.data.phash import HASHED_SIDE, perceptual_hashes
from tasks.data.walk import Found
from tasks.files import sha256
from tasks.pixels import (
    STATISTICS,
    Pixels,
    Sample,
    UnreadableImage,
    measure,
    read_with_mode,
    sample,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_GREY_SIDE = 128  # a larger image is reduced to about this before it is hashed
_IN_MEMORY = 64 << 20  # a larger file is hashed and decoded from the disk

Row = dict[str, str | int | float | bytes | None]


class Seen(NamedTuple):
    """What is kept of a decoded image until its chunk is measured."""

    sample: Sample
    thumbnail: Pixels


def describe_all(chunk: "Sequence[Found]", max_pixels: int) -> list[Row]:
    """The manifest rows of a chunk of files: the unit of work of a process.

    A file that cannot be read carries the reason in `error`. A row does not depend on the
    other files of the chunk.
    """
    rows: list[Row] = [{"path": found.path, "label": found.label} for found in chunk]
    seen: dict[int, Seen] = {}
    for index, found in enumerate(chunk):
        try:
            seen[index] = _describe(found, max_pixels, rows[index])
        except UnreadableImage as error:
            rows[index]["error"] = str(error)
        except OSError as error:
            rows[index]["error"] = f"cannot be read: {error.strerror or error}"
        except Exception as error:  # a hostile file can raise anything inside a decoder
            rows[index]["error"] = f"broken image: {type(error).__name__}: {error}"
    _measure(rows, seen)
    return rows


def pixel_hash(image: Pixels) -> str:
    """BLAKE2b-128 of shape and pixels of a uint8 H×W×3 image, 32 hexadecimal digits.

    Equal for files that differ in format, metadata or colour mode but show the same pixels.
    """
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _describe(found: Found, max_pixels: int, row: Row) -> Seen:
    """Fill in what one file alone decides."""
    status = os.stat(found.file)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise UnreadableImage("not a regular file")
    row["bytes"] = status.st_size
    source: bytes | Path = Path(found.file)
    if status.st_size <= _IN_MEMORY:
        with open(found.file, "rb") as stream:
            source = stream.read()
        row["file_hash"] = hashlib.sha256(source).hexdigest()
    else:
        row["file_hash"] = sha256(found.file)
    if found.problem is not None:
        raise UnreadableImage(found.problem)
    image, mode = read_with_mode(source, max_pixels)
    grey = Image.fromarray(image).convert("L")
    if (factor := max(grey.size) // _GREY_SIDE) > 1:
        grey = grey.reduce(factor)
    thumbnail = grey.resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS)
    row |= {
        "width": image.shape[1],
        "height": image.shape[0],
        "mode": mode,
        "pixel_hash": pixel_hash(image),
        "thumbnail": thumbnail.tobytes(),
    }
    return Seen(sample(image), np.asarray(thumbnail))


def _measure(rows: list[Row], seen: dict[int, Seen]) -> None:
    if not seen:
        return
    measured = measure([one.sample for one in seen.values()]).tolist()
    hashes = perceptual_hashes(np.stack([one.thumbnail for one in seen.values()]))
    for index, values, value in zip(seen, measured, hashes, strict=True):
        rows[index] |= dict(zip(STATISTICS, values, strict=True))
        rows[index]["phash"] = value.tobytes().hex()
