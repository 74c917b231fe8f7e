"""The frozen test images as any bundle's input: what the gate compares models on."""

from pathlib import Path

import numpy as np

from tasks.bundle import Bundle
from tasks.data.shards import SHARDS, open_shards
from tasks.errors import DataError
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
    folder = root / params.ingest.path

    def images(bundle: Bundle) -> Pixels:
        contract = bundle.info.input
        if (contract.size, contract.resize) == (shards.contract.size, shards.contract.resize):
            return split.images
        return np.stack([_decode(bundle, folder / path) for path in split.paths])

    return FrozenImages(shards.classes, split.labels, images)


def _decode(bundle: Bundle, path: Path) -> Pixels:
    try:
        return bundle.pixels(path)
    except UnreadableImage as error:
        raise DataError(
            f"test image {path} cannot be prepared for the champion's input of "
            f"{bundle.info.input.size} pixels: {error}"
        ) from None
