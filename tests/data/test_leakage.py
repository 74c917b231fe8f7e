"""Planted duplicates of real images never cross a split, while the data set grows twice."""

import io
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from tasks.data.clean import clean
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
from tasks.data.split import assign
from tasks.params import load_params
from tasks.pixels import STATISTICS, statistics
from tasks.schema import Split

PARAMS = load_params(Path(__file__).parents[2] / "conf/presets/photo.yaml")
ORIGINALS, GROWTH = 90, 30
SHARPNESS = STATISTICS.index("sharpness")


def part(photos: list[Image.Image], number: int) -> Image.Image:
    """One of many parts of the photographs with something to see: no bare sky or background."""
    rng = np.random.default_rng(number)
    photo = photos[number % len(photos)]
    while True:
        side = int(rng.integers(60, 90))
        left = int(rng.integers(0, photo.width - side))
        top = int(rng.integers(0, photo.height - side))
        image = photo.crop((left, top, left + side, top + side)).resize((96, 96))
        if statistics(np.asarray(image))[SHARPNESS] > 1e-3:
            return image


def altered(image: Image.Image, rng: random.Random) -> Image.Image:
    """A near-duplicate: encoded anew, resized or lit differently."""
    kind = rng.randrange(4)
    if kind == 0:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=rng.randrange(50, 90))
        return Image.open(stream)
    if kind == 1:
        side = rng.choice([80, 88, 104, 112])
        return image.resize((side, side))
    if kind == 2:
        return ImageEnhance.Brightness(image).enhance(rng.choice([0.9, 1.1]))
    return image.copy()  # the same pixels


class Planted:
    """A folder of images, and which file is a duplicate of which."""

    def __init__(self, root: Path, photos: list[Image.Image], seed: int) -> None:
        self.root, self.photos = root, photos
        self.rng = random.Random(seed)
        self.origins: dict[str, int] = {}
        self.next = seed * 1000

    def add(self, count: int) -> None:
        """`count` new images, and half as many duplicates of old or new ones."""
        for _ in range(count):
            self.save(part(self.photos, self.next), self.next)
            self.next += 1
        known = sorted(set(self.origins.values()))
        for _ in range(count // 2):
            origin = self.rng.choice(known)
            self.save(altered(part(self.photos, origin), self.rng), origin)

    def save(self, image: Image.Image, origin: int) -> None:
        path = f"{'ab'[origin % 2]}/{self.rng.randrange(10**9):09d}.png"
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(self.root / path)
        self.origins[f"mine/{path}"] = origin

    def split(self, config: Split, previous: pd.DataFrame | None) -> pd.DataFrame:
        policy = PARAMS.clean.policy.model_copy(
            update={"exact_duplicate": "flag", "near_duplicate": "flag"}
        )
        cleaning = PARAMS.clean.model_copy(update={"policy": policy})
        manifest = ingest("mine", find_files(self.root), 10**7, 1).to_pandas()
        return assign(*clean(manifest, cleaning), config, previous)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


@pytest.mark.parametrize("seed", range(10))
def test_no_planted_duplicate_crosses_a_split(
    tmp_path: Path, photos: list[Image.Image], seed: int
) -> None:
    data = Planted(tmp_path / "images", photos, seed)
    config = PARAMS.split.model_copy(update={"seed": seed})
    data.add(ORIGINALS)
    splits = data.split(config, None)
    for _ in range(2):
        before = splits.dropna(subset="split").set_index("path")["split"]
        data.add(GROWTH)
        splits = data.split(config, splits)
        after = splits.set_index("path")["split"]
        assert after[before.index].equals(before), "an old image moved"
    inside = splits.dropna(subset="split")
    origins = inside["path"].map(data.origins)
    crossing = inside.groupby(origins)["split"].nunique()
    assert crossing.max() == 1, inside[origins.isin(crossing.index[crossing > 1])]
    assert inside.groupby("pixel_hash")["split"].nunique().max() == 1
    assert len(inside) > 0.9 * len(splits)
