"""Images that no class is of: noise, blank ones, spoilt copies of usual images, a folder's.

They are the network's input, uint8 S×S×3: what `tasks.pixels.fit` does to a file is done.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.bundle import InputContract
from tasks.errors import DataError
from tasks.pixels import Pixels, UnreadableImage, read

MOST = 500  # images of a kind
FOLDER = "your own images"
_GRID = 4  # parts a side in which patches are shuffled
log = logging.getLogger(__name__)


def strange_images(images: Pixels, seed: int, grey: bool) -> Iterator[tuple[str, Pixels]]:
    """By kind as many strange images as there are usual ones, uint8 N×S×S×3.

    With `grey` the three channels of what is made are the same, as of all images that were
    turned grey.
    """
    rng = np.random.default_rng(seed)
    wide = (*images.shape[:-1], 1 if grey else 3)
    spread = float(images.std())
    yield "uniform noise", _channels(rng.integers(0, 256, wide, np.uint8))
    drawn = rng.normal(float(images.mean()), max(spread, 1.0), wide)
    yield "Gaussian noise", _channels(np.clip(np.rint(drawn), 0, 255).astype(np.uint8))
    blank = rng.integers(0, 256, (len(images), 1, 1, wide[-1]), np.uint8)
    yield "one colour", np.ascontiguousarray(np.broadcast_to(_channels(blank), images.shape))
    yield "patches shuffled", _shuffled(images, rng)
    yield "colours inverted", 255 - images


def folder_images(folder: Path, contract: InputContract) -> Pixels:
    """The images below a folder as the network's input, at most 2 × MOST, sorted by path.

    Raises DataError when there are fewer than two that can be read.
    """
    if not folder.is_dir():
        raise DataError(f"evaluate.ood.images: {folder} is no folder; name one, or null for none")
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name[0] != ".")
    found: list[Pixels] = []
    for file in files:
        if len(found) == 2 * MOST:
            log.warning("evaluate.ood.images: the first %d images are looked at", len(found))
            break
        try:
            found.append(contract.fit(read(file, contract.max_pixels)))
        except UnreadableImage as error:
            log.warning("evaluate.ood.images: %s is passed over: %s", file, error)
    if len(found) < 2:
        raise DataError(
            f"evaluate.ood.images: {len(found)} of {len(files)} files below {folder} can be read "
            "as images; two are needed, one to choose the score by and one to measure it on"
        )
    return np.stack(found)


def _channels(images: Pixels) -> Pixels:
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def _shuffled(images: Pixels, rng: np.random.Generator) -> Pixels:
    """Each image's patches in another order, the same for no two; edges that are left over stay."""
    side = images.shape[1] // _GRID
    count, inside = len(images), images[:, : side * _GRID, : side * _GRID]
    patches = inside.reshape(count, _GRID, side, _GRID, side, 3).swapaxes(2, 3)
    flat = patches.reshape(count, _GRID * _GRID, side, side, 3)
    moved = rng.permuted(np.tile(np.arange(_GRID * _GRID), (count, 1)), axis=1)
    mixed = flat[np.arange(count)[:, None], moved].reshape(patches.shape).swapaxes(2, 3)
    changed = images.copy()
    changed[:, : side * _GRID, : side * _GRID] = mixed.reshape(inside.shape)
    return changed
