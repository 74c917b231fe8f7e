"""One file → one manifest row: hashes, size, statistics, or the reason it cannot be read."""

import hashlib
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tasks.data.walk import Found
from tasks.files import sha256
from tasks.pixels import STATISTICS, Pixels, UnreadableImage, read_with_mode, statistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

THUMBNAIL_SIDE = 16
_HASHED_SIDE = 128  # enough for the 32×32 the perceptual hash looks at

Row = dict[str, str | int | float | bytes | None]


def describe(found: Found, max_pixels: int) -> Row:
    """The manifest row of a file; one that cannot be read carries the reason in `error`."""
    row: Row = {"path": found.path, "label": found.label}
    try:
        row |= _describe_file(found.file)
        if found.problem is not None:
            raise UnreadableImage(found.problem)
        row |= _describe_image(Path(found.file), max_pixels)
    except UnreadableImage as error:
        row["error"] = str(error)
    except OSError as error:
        row["error"] = f"cannot be read: {error.strerror or error}"
    except Exception as error:  # a hostile file can raise anything inside a decoder
        row["error"] = f"broken image: {type(error).__name__}: {error}"
    return row


def describe_all(chunk: "Sequence[Found]", max_pixels: int) -> list[Row]:
    """`describe` for a chunk of files: the unit of work of a process."""
    return list(map(partial(describe, max_pixels=max_pixels), chunk))


def pixel_hash(image: Pixels) -> str:
    """BLAKE2b-128 of shape and pixels of a uint8 H×W×3 image, 32 hexadecimal digits.

    Equal for files that differ in format, metadata or colour mode but show the same pixels.
    """
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _describe_file(file: str) -> "Mapping[str, str | int]":
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise UnreadableImage("not a regular file")
    return {"bytes": status.st_size, "file_hash": sha256(file)}


def _describe_image(file: Path, max_pixels: int) -> Row:
    import imagehash

    image, mode = read_with_mode(file, max_pixels)
    grey = Image.fromarray(image).convert("L")
    if (factor := max(grey.size) // _HASHED_SIDE) > 1:
        grey = grey.reduce(factor)
    thumbnail = grey.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    row: Row = dict(zip(STATISTICS, map(float, statistics(image)), strict=True))
    return row | {
        "width": image.shape[1],
        "height": image.shape[0],
        "mode": mode,
        "pixel_hash": pixel_hash(image),
        "phash": str(imagehash.phash(grey)),
        "thumbnail": thumbnail.tobytes(),
    }
