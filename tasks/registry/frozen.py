"""The frozen test images as any bundle's input: what the gate compares models on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.bundle import Bundle
from tasks.data.shards import SHARDS, open_shards
from tasks.errors import DataError
from tasks.pixels import Images, Pixels, UnreadableImage
from tasks.registry.gate import FrozenImages
from tasks.schema import Params


def frozen_images(params: Params, root: Path = Path()) -> FrozenImages:
    """The test split below `root`, the folder that dvc.yaml is in.

    A bundle of the shards' input contract gets the packed images, another one the same images
    decoded anew where they are indexed. Raises DataError for damaged shards, or (when decoding)
    images that are gone.
    """
    shards = open_shards(root / SHARDS)
    split = shards.split("test")
    folder = root / params.ingest.path

    def images(bundle: Bundle) -> Images:
        if bundle.info.input == shards.contract:
            return split.images
        return DecodedImages(bundle, folder, split.paths)

    return FrozenImages(shards.classes, split.labels, images)


@dataclass(frozen=True)
class DecodedImages:
    """Image files as a bundle's input, uint8 N×S×S×3; only what is sliced is in memory."""

    bundle: Bundle
    folder: Path
    paths: list[str]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        size = self.bundle.info.input.size
        return len(self.paths), size, size, 3

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: slice) -> Pixels:
        images = [_decode(self.bundle, self.folder / path) for path in self.paths[key]]
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)


def _decode(bundle: Bundle, path: Path) -> Pixels:
    try:
        return bundle.pixels(path)
    except UnreadableImage as error:
        raise DataError(
            f"test image {path} cannot be prepared for the champion's input of "
            f"{bundle.info.input.size} pixels: {error}"
        ) from None
