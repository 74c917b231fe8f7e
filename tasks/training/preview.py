"""A picture of what the network is shown: the first images of an epoch, changed and mixed.

Drawn before training starts, so that a wrong label, a flipped digit or an augmentation that
leaves nothing to see is noticed before hours are spent on it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tasks.files import atomic_write
from tasks.schema import Train
from tasks.training.losses import soft
from tasks.training.models import ModelSpec
from tasks.training.sampling import EpochOrder

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit
    from tasks.pixels import Pixels

_COLUMNS, _ROWS = 8, 5
_TILE, _LINE, _GAP = 128, 15, 6  # pixels: of an image, of a line of text, between images
_NAMED = 0.05  # shares of a class below this are not written out
_LETTERS = 20  # that fit beside a share below a tile


def write_preview(path: Path, train: "ShardSplit", spec: ModelSpec, config: Train) -> None:
    """Write a PNG of 40 training images as the network will see them, with their targets.

    They are drawn as for an epoch (so a class that is sampled more often is seen more often),
    augmented and mixed, and brought back to 0..255. The seed decides all of it; the caller's
    random state is left alone.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        images, targets = _batch(train, spec, config)
    tiles = [_tile(image) for image in _pixels(images, spec)]
    page = _page(tiles, [_words(row, spec.classes) for row in targets])
    with atomic_write(path) as stream:
        page.save(stream, "PNG")


def _batch(train: "ShardSplit", spec: ModelSpec, config: Train) -> tuple[Tensor, Tensor]:
    """Images as the network gets them, float n×3×S×S, and targets, float n×C."""
    from tasks.training.augmentation import augmentation  # torchvision: as long as torch
    from tasks.training.mixing import mixing

    recipe, classes = config.augment.recipe, len(spec.classes)
    order = EpochOrder(train.labels, config.imbalance.sampling, train.weights)
    indices = order.draw()[: _COLUMNS * _ROWS].numpy()
    labels = torch.from_numpy(train.labels[indices])
    stored = torch.from_numpy(np.array(train.images[indices]))
    images, targets = mixing(recipe, classes)(augmentation(spec, recipe)(stored), labels)
    return images, soft(targets, classes, 0.0)


def _pixels(images: Tensor, spec: ModelSpec) -> "Pixels":
    """The normalisation undone: uint8 n×S×S×3."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    levels = ((images * std + mean) * 255).round().clamp(0, 255)
    return np.asarray(levels.to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _tile(image: "Pixels") -> Image.Image:
    """Small images enlarged without smoothing: each pixel is to be seen."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    way = Image.Resampling.NEAREST if len(image) < _TILE else Image.Resampling.BOX
    return picture.resize((_TILE, _TILE), way)


def _words(target: Tensor, classes: tuple[str, ...]) -> list[str]:
    """The class, or of a mixed image the two classes and their shares, largest first."""
    order = target.argsort(descending=True, stable=True)[:2].tolist()
    named = [(classes[index], float(target[index])) for index in order]
    if named[1][1] < _NAMED:
        return [named[0][0][:_LETTERS]]
    return [f"{name[:_LETTERS]} {share:.2f}" for name, share in named]


def _page(tiles: list[Image.Image], words: list[list[str]]) -> Image.Image:
    width, height = _TILE + _GAP, _TILE + 2 * _LINE + _GAP
    rows = -(-len(tiles) // _COLUMNS)
    page = Image.new("RGB", (_GAP + _COLUMNS * width, _GAP + rows * height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_LINE - 3)
    for number, (tile, lines) in enumerate(zip(tiles, words, strict=True)):
        left, top = _GAP + number % _COLUMNS * width, _GAP + number // _COLUMNS * height
        page.paste(tile, (left, top))
        pen.multiline_text((left, top + _TILE), "\n".join(lines), "black", font, spacing=1)
    return page
