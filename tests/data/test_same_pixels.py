"""What is trained on is what is served: preparation, server and bundle, byte for byte."""

from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.bundle import Bundle, BundleInfo, InputContract
from tasks.data.describe import pixel_hash
from tasks.data.prepare import Packing, prepare
from tasks.data.shards import open_shards
from tasks.pixels import crop, read
from tasks.serving.batcher import Batcher
from tasks.serving.model import ServedModel

SIZE, MARGIN = 40, 8
RESIZES = [("stretch", 0), ("letterbox", 0), ("crop", 0), ("crop", MARGIN)]
NORMALISATIONS: list[dict[str, Any]] = [
    {"method": "none"},
    {"method": "percentile", "low": 2.0, "high": 98.0},
    {"method": "zscore", "spread": 50.0},
    {"method": "clahe", "clip": 2.0, "tiles": 4},
]
PACKINGS = {"raw": Packing(raw=True), "encoded": Packing(raw=False)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of crops of a real photograph, in every form that cameras and scanners give."""
    from sklearn.datasets import load_sample_images

    root = tmp_path_factory.mktemp("photos")
    for label, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / label).mkdir()
        for number in range(12):
            _save(root / label, number, Image.fromarray(photo).crop(_box(number)))
    return root


def _box(number: int) -> tuple[int, int, int, int]:
    left, top = 17 * number, 9 * number
    return left, top, left + 101 + 23 * number, top + 97 + 7 * (number % 4)


def _save(folder: Path, number: int, image: Image.Image) -> None:
    kind = number % 6
    if kind == 0:
        orientation = Image.Exif()
        orientation[0x0112] = 6
        image.save(folder / f"{number}_turned.jpg", exif=orientation, quality=92)
    elif kind == 1:
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(deep).save(folder / f"{number}_deep.png")
    elif kind == 2:
        image.convert("P").save(folder / f"{number}_palette.png")
    elif kind == 3:
        image.convert("L").save(folder / f"{number}_grey.webp", lossless=True)
    elif kind == 4:
        image.convert("CMYK").save(folder / f"{number}_print.tif")
    else:
        image.resize((SIZE, SIZE)).save(folder / f"{number}_exact.png")


@pytest.fixture(scope="module")
def splits(photos: Path) -> pd.DataFrame:
    files = sorted(photos.glob("*/*"))
    rows = {
        "path": [str(file.relative_to(photos)) for file in files],
        "source": "photos",
        "box": None,
        "label": [file.parent.name for file in files],
        "pixel_hash": [pixel_hash(read(file, 10**7)) for file in files],
        "split": [("train", "train", "validation", "test")[n % 4] for n in range(len(files))],
    }
    return pd.DataFrame(rows).assign(weight=np.nan)


def contract_with(
    resize: str, margin: int, colour: str, normalise: dict[str, Any]
) -> InputContract:
    return InputContract.model_validate(
        {
            "size": SIZE, "resize": resize, "margin": margin, "colour": colour,
            "normalise": normalise, "max_pixels": 10**7,
        }
    )  # fmt: skip


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("resize", "margin", "colour", "normalise"),
    [
        (*resize, colour, n)
        for resize, colour, n in product(RESIZES, ("rgb", "grey"), NORMALISATIONS)
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else str(value),
)
def test_shards_server_and_bundle_agree_byte_for_byte(
    photos: Path, splits: pd.DataFrame,
    tmp_path: Path, resize: str, margin: int, colour: str, normalise: dict[str, Any], packing: str,
) -> None:  # fmt: skip
    contract = contract_with(resize, margin, colour, normalise)
    folders = {"photos": photos}
    prepare(splits, folders, contract, tmp_path / "shards", workers=1, packing=PACKINGS[packing])
    shards = open_shards(tmp_path / "shards")
    assert shards.contract == contract
    bundle = Bundle(tmp_path, BundleInfo.model_construct(input=contract), "")
    server = ServedModel(1, bundle, cast(Batcher, None), datetime.now(UTC))  # decodes, no more
    seen = 0
    for name in ("train", "validation", "test"):
        split = shards.split(name)
        for packed, path in zip(split.images, split.paths, strict=True):
            served = bundle.pixels(photos / path)
            assert served.shape == (SIZE, SIZE, 3)
            np.testing.assert_array_equal(crop(packed, SIZE), served)
            decoded = server.decode((photos / path).read_bytes())
            np.testing.assert_array_equal(decoded.pixels, served)
            seen += 1
    assert seen == 24


def test_each_setting_changes_the_pixels(photos: Path) -> None:
    """Else the agreement above would prove nothing."""
    image = read(photos / "flower/6_turned.jpg", 10**7)
    assert image.shape[0] > image.shape[1] * 1.5  # turned upright
    settings = [(*r, c, n) for r, c, n in product(RESIZES, ("rgb", "grey"), NORMALISATIONS)]
    found = {contract_with(*values).fit(image).tobytes() for values in settings}
    assert len(found) == len(settings) == 32


def test_grey_has_the_luminance_in_all_channels(photos: Path) -> None:
    image = read(photos / "flower/0_turned.jpg", 10**7)
    contract = contract_with("stretch", 0, "grey", {"method": "none"})
    resized = contract.model_copy(update={"colour": "rgb"}).fit(image)
    luminance = resized @ np.array([0.299, 0.587, 0.114])
    for channel in range(3):
        assert np.abs(contract.fit(image)[..., channel] - luminance).max() <= 1


def test_crop_takes_the_middle_at_the_scale_of_the_margin() -> None:
    """A gradient tells where each pixel came from: 100 high, 200 wide, the shorter side to 50."""
    gradient = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    contract = contract_with("crop", 10, "rgb", {"method": "none"})
    wide = contract.fit_with_margin(np.ascontiguousarray(gradient))
    assert wide.shape == (50, 50, 3)
    np.testing.assert_allclose(wide[25, 1:-1, 0], 50 + 2 * np.arange(1, 49) + 0.5, atol=1)
    np.testing.assert_array_equal(contract.fit(np.ascontiguousarray(gradient)), wide[5:45, 5:45])


def test_padding_is_no_part_of_what_is_normalised() -> None:
    half = np.random.default_rng(0).integers(100, 110, (20, 40, 3), np.uint8)
    stretched = {"method": "percentile", "low": 0.0, "high": 100.0}
    found = contract_with("letterbox", 0, "rgb", stretched).fit(half)
    assert (found[:10] == 127).all()
    assert (found[30:] == 127).all()
    assert (found[10:30].min(), found[10:30].max()) == (0, 255)


def test_a_contract_without_the_later_keys_means_what_it_meant(photos: Path) -> None:
    old = InputContract.model_validate({"size": 40, "resize": "letterbox", "max_pixels": 10**7})
    assert old == contract_with("letterbox", 0, "rgb", {"method": "none"})
