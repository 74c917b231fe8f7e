"""The frozen test images as any bundle's input: what the gate compares models on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.bundle import Bundle
from tasks.data.images import ImageFile, image_files, read_image, source_folders
from tasks.data.shards import SHARDS, open_shards
from tasks.data.tables import SPLITS, read_table
from tasks.errors import DataError
from tasks.params import load_settings
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

    def images(bundle: Bundle) -> Images:
        if bundle.info.input == shards.contract:
            return split.images
        return DecodedImages(bundle, _files(params, root, split.paths))

    return FrozenImages(shards.classes, split.labels, split.hashes, images)


def _files(params: Params, root: Path, paths: list[str]) -> list[ImageFile]:
    rows = read_table(root / SPLITS, "split").set_index("path", drop=False).loc[paths]
    return image_files(rows, source_folders(params.ingest, load_settings().home, root))


@dataclass(frozen=True)
class DecodedImages:
    """Image files as a bundle's input, uint8 N×S×S×3; only what is sliced is in memory."""

    bundle: Bundle
    files: list[ImageFile]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        size = self.bundle.info.input.size
        return len(self.files), size, size, 3

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: slice) -> Pixels:
        images = [_decode(self.bundle, file) for file in self.files[key]]
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)


def _decode(bundle: Bundle, image: ImageFile) -> Pixels:
    try:
        return bundle.fitted(read_image(image, bundle.info.input.max_pixels))
    except UnreadableImage as error:
        raise DataError(
            f"test image {image} cannot be prepared for the champion's input of "
            f"{bundle.info.input.size} pixels: {error}"
        ) from None
