"""Files → manifest rows: hashes, size, statistics, or the reason one cannot be read.

A file is read once and decoded alone; what is measured is measured for a chunk together.
"""

import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from tasks.data.phash import HASHED_SIDE, perceptual_hashes
from tasks.data.sources.found import Found
from tasks.files import sha256
from tasks.pixels import (
    STATISTICS,
    Pixels,
    Sample,
    UnreadableImage,
    cut,
    decode,
    measure,
    sample,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_GREY_SIDE = 128
_IN_MEMORY = 64 << 20  # a larger file is hashed and decoded from the disk

Row = dict[str, str | int | float | bytes | None]


class Seen(NamedTuple):
    """What is kept of a decoded image until its chunk is measured."""

    sample: Sample
    thumbnail: Pixels


def describe_all(chunk: "Sequence[Found]", max_pixels: int) -> list[Row]:
    """What the manifest says of a chunk of files: the unit of work of a process.

    A file that cannot be read carries the reason in `error`. A row does not depend on the
    other files of the chunk.
    """
    rows: list[Row] = [{} for _ in chunk]
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


def grey_of(image: Image.Image) -> Image.Image:
    """The image in grey, reduced to about 128 pixels a side."""
    grey = image.convert("L")
    factor = max(grey.size) // _GREY_SIDE
    return grey.reduce(factor) if factor > 1 else grey


def entropy(grey: Image.Image) -> float:
    """Entropy of the grey values over its highest, 8 bits: 0 flat, 1 all equally often."""
    return grey.entropy() / 8


def _describe(found: Found, max_pixels: int, row: Row) -> Seen:
    """Fill in what one file alone decides."""
    if found.problem is not None and not os.path.isfile(found.file):
        raise UnreadableImage(found.problem)
    status = os.stat(found.file)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise UnreadableImage("not a regular file")
    row["bytes"] = status.st_size
    source: bytes | str = found.file
    if status.st_size <= _IN_MEMORY:
        with open(found.file, "rb", buffering=0) as stream:
            source = stream.read()
        row["file_hash"] = hashlib.sha256(source).hexdigest()
    else:
        row["file_hash"] = sha256(found.file)
    if found.problem is not None:
        raise UnreadableImage(found.problem)
    image, mode, note, picture = decode(source, max_pixels)
    if found.box is not None:
        image = cut(image, found.box)
        picture = Image.fromarray(image)
    grey = grey_of(picture)
    thumbnail = grey.resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS).tobytes()
    row |= {
        "width": image.shape[1],
        "height": image.shape[0],
        "mode": mode,
        "note": note,
        "entropy": entropy(grey),
        "pixel_hash": pixel_hash(image),
        "thumbnail": thumbnail,
    }
    hashed = np.frombuffer(thumbnail, np.uint8).reshape(HASHED_SIDE, HASHED_SIDE)
    return Seen(sample(image), hashed)


def _measure(rows: list[Row], seen: dict[int, Seen]) -> None:
    if not seen:
        return
    measured = measure([one.sample for one in seen.values()]).tolist()
    hashes = perceptual_hashes(np.stack([one.thumbnail for one in seen.values()]))
    for index, values, value in zip(seen, measured, hashes, strict=True):
        rows[index] |= dict(zip(STATISTICS, values, strict=True))
        rows[index]["phash"] = value.tobytes().hex()
