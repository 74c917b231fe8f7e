"""Images per second into the network: our shards against torchvision's usual loader.

python -m benchmarks.loader [--data CIFAR10.tar.gz | FOLDER] [--images N] [--repeats R]

Ours: uint8 shards, raw in memory or encoded in a memory-mapped file and decoded a batch ahead, with
a random change of its own for every image, batch by batch, as in training. The peer: ImageFolder
and DataLoader with 0 and with 2 workers and the same changes as torchvision makes them, image by
image. Both give shuffled, normalised float batches in the training layout.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks._cifar import add_data_argument, class_folders
from tasks.data.encoded import EncodedImages, encode, write_encoded
from tasks.pixels import Images, Pixels
from tasks.schema import Recipe
from tasks.training.augmentation import augmentation
from tasks.training.models import ModelSpec
from tasks.training.reading import read_ahead

SIZE, BATCH = 32, 128
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
CHANGES = Recipe(flip=True, shift=0.1, rotate=10.0, scale=0.1, brightness=0.1, contrast=0.1)
Source = Callable[[], Iterator[Tensor]]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        root = class_folders(arguments.data, Path(scratch))
        images = _images(root, arguments.images)
        sources = {
            "shards": _shards(images),
            "encoded shards": _shards(_encode(images, Path(scratch) / "encoded")),
        }
        sources |= {f"DataLoader, {n} workers": _data_loader(root, n) for n in (0, 2)}
        rates: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(arguments.repeats):  # interleaved: a busy moment hits them alike
            for name, source in sources.items():
                count = arguments.images if "shards" in name else arguments.images // 10
                rates[name].append(_rate(source, count))
    _report({name: median(values) for name, values in rates.items()})


def _images(root: Path, count: int) -> Pixels:
    paths = sorted(root.glob("*/*"))[:: max(1, len(list(root.glob("*/*"))) // count)][:count]
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def _encode(images: Pixels, folder: Path) -> EncodedImages:
    """The images packed losslessly, as prepare packs those above prepare.max_raw_gb."""
    folder.mkdir()
    encoded = [encode(image, None) for image in images]
    write_encoded(folder, "train", [encoded[at : at + 256] for at in range(0, len(encoded), 256)])
    return EncodedImages(sorted(folder.iterdir()), len(images), SIZE)


def _shards(images: Images) -> Source:
    spec = ModelSpec(
        architecture="resnet_small",
        width=16,
        depth=1,
        classes=("one", "other"),
        size=SIZE,
        mean=MEAN,
        std=STD,
    )
    augment = augmentation(spec, CHANGES)

    def batches() -> Iterator[Tensor]:
        while True:
            order = [indices.numpy() for indices in torch.randperm(len(images)).split(BATCH)]
            yield from map(augment, read_ahead(images, order))

    return batches


def _data_loader(root: Path, workers: int) -> Source:
    shift, light = CHANGES.shift, CHANGES.brightness
    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                CHANGES.rotate,
                (shift, shift),
                (1 - CHANGES.scale, 1 + CHANGES.scale),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(light, CHANGES.contrast),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    folder = ImageFolder(str(root), transform)
    loader = DataLoader(folder, BATCH, shuffle=True, num_workers=workers)

    def batches() -> Iterator[Tensor]:
        for images, _ in loader:
            yield images.contiguous(memory_format=torch.channels_last)

    return batches


def _rate(source: Source, count: int) -> float:
    """Images per second over `count` images, once the source is warm (workers started)."""
    batches = source()
    next(batches)
    started = time.perf_counter()
    images = sum(len(batch) for batch in itertools.islice(batches, max(1, count // BATCH)))
    return images / (time.perf_counter() - started)


def _report(rates: dict[str, float]) -> None:
    print(f"{'CIFAR-10 JPEG, batches of ' + str(BATCH):32} images/s")
    for name, rate in rates.items():
        print(f"{name:32} {rate:8,.0f}")
    ours, encoded = rates.pop("shards"), rates.pop("encoded shards")
    peer = max(rates.values())
    line = {"benchmark": "loader", "ours": ours, "peer": peer, "ratio": ours / peer}
    line |= {"encoded": encoded / peer}
    print(json.dumps({key: v if isinstance(v, str) else round(v, 2) for key, v in line.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=20_000, help="through the shards, a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
