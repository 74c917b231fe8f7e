"""Some CIFAR-10 images as training, validation and test split in memory, others for every seed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.data.shards import ShardSplit
from tasks.training.models import ModelSpec, channel_moments

SIZE = 32


@dataclass(frozen=True)
class Data:
    """The three splits, and the spec of the wide network."""

    train: ShardSplit
    validation: ShardSplit
    test: ShardSplit
    spec: ModelSpec

    @property
    def splits(self) -> tuple[ShardSplit, ShardSplit]:
        """Training and validation."""
        return self.train, self.validation


def drawn_data(root: Path, seed: int, images: int, test: int, width: int) -> Data:
    """`images` of root/train by the seed, of which a tenth validate, and `test` of root/test.

    The spec is that of a resnet_small of `width`.
    """
    classes = tuple(sorted(folder.name for folder in (root / "train").iterdir()))
    held_out = images // 10
    pixels, labels = _drawn(root / "train", classes, images, seed)
    train = _split(pixels[held_out:], labels[held_out:])
    spec = ModelSpec.model_validate(
        dict(zip(("mean", "std"), channel_moments(train.images), strict=True))
        | {"architecture": "resnet_small", "width": width, "depth": 1}
        | {"classes": classes, "size": SIZE}
    )
    validation = _split(pixels[:held_out], labels[:held_out])
    return Data(train, validation, _split(*_drawn(root / "test", classes, test, 0)), spec)


def _drawn(
    folder: Path, classes: tuple[str, ...], count: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """As many images of every class, in random order."""
    generator = np.random.default_rng(seed)
    files = [sorted((folder / name).glob("*.jpg")) for name in classes]
    each = count // len(classes)
    chosen = [
        (paths[number], label)
        for label, paths in enumerate(files)
        for number in generator.permutation(len(paths))[:each]
    ]
    order = generator.permutation(len(chosen))
    pixels = [np.asarray(Image.open(chosen[row][0]).convert("RGB")) for row in order]
    return np.stack(pixels), np.array([chosen[row][1] for row in order], np.int64)


def _split(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> ShardSplit:
    count = len(labels)
    hashes = np.array([str(row) for row in range(count)], "S32")
    paths = [str(row) for row in range(count)]
    return ShardSplit(images, labels, np.zeros((count, 5), np.float32), hashes, paths)
