"""The frozen test images as any bundle's input: what the gate compares models on."""

from pathlib import Path

import numpy as np

from tasks.bundle import Bundle
from tasks.data.images import ImageFile, image_files, read_image, source_folders
from tasks.data.shards import SHARDS, open_shards
from tasks.data.tables import SPLITS, read_table
from tasks.errors import DataError
from tasks.params import load_settings
from tasks.pixels import Pixels, UnreadableImage
from tasks.registry.gate import FrozenImages
from tasks.schema import Params


def frozen_images(params: Params, root: Path = Path()) -> FrozenImages:
    """The test split below `root`, the folder that dvc.yaml is in.

    A bundle of the shards' size and resizing gets the packed images, another one the same
    images decoded anew. Raises DataError for damaged shards, or (when decoding) images that
    are gone.
    """
    shards = open_shards(root / SHARDS)
    split = shards.split("test")

    def images(bundle: Bundle) -> Pixels:
        contract = bundle.info.input
        if (contract.size, contract.resize) == (shards.contract.size, shards.contract.resize):
            return split.images
        files = _files(params, root, split.paths)
        return np.stack([_decode(bundle, file) for file in files])

    return FrozenImages(shards.classes, split.labels, images)


def _files(params: Params, root: Path, paths: list[str]) -> list[ImageFile]:
    rows = read_table(root / SPLITS, "split").set_index("path", drop=False).loc[paths]
    return image_files(rows, source_folders(params.ingest, load_settings().home, root))


def _decode(bundle: Bundle, image: ImageFile) -> Pixels:
    try:
        return bundle.fitted(read_image(image, bundle.info.input.max_pixels))
    except UnreadableImage as error:
        raise DataError(
            f"test image {image} cannot be prepared for the champion's input of "
            f"{bundle.info.input.size} pixels: {error}"
        ) from None
