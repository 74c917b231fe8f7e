"""Small real images and the tables made from them."""

import base64
import io
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from tasks.data.clean import Cleaned, clean
from tasks.data.digits import write_digits
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
from tasks.params import load_params
from tasks.schema import Clean

CLEAN = load_params(Path(__file__).parents[2] / "conf/params.yaml").clean
MAX_PIXELS = 50_000_000


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "raw"
    write_digits(folder)
    return folder


@pytest.fixture(scope="session")
def digits_manifest(digits_folder: Path) -> pd.DataFrame:
    return manifest_of(digits_folder)


@pytest.fixture(scope="session")
def digits_clean(digits_manifest: pd.DataFrame) -> Cleaned:
    return clean(digits_manifest, CLEAN)


@pytest.fixture(scope="session")
def digits_cleaned(digits_clean: Cleaned) -> pd.DataFrame:
    return digits_clean.table


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A real photograph, 640×427 RGB."""
    return Image.fromarray(load_sample_images().images[0])


@pytest.fixture
def scan() -> Callable[[int], Image.Image]:
    """The n-th handwritten digit, 8×8 greyscale."""
    images = load_digits().images
    return lambda n: Image.fromarray(np.rint(images[n] * 255 / 16).astype(np.uint8))


@pytest.fixture
def images(tmp_path: Path, photo: Image.Image) -> Path:
    """Four parts of a photograph: images/{cat,dog}/{0,1}.png."""
    root = tmp_path / "set" / "images"
    for number, name in enumerate(("cat/0", "cat/1", "dog/0", "dog/1")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        left = number * 100
        photo.crop((left, 50, left + 120, 150)).save(root / f"{name}.png")
    return root


def manifest_of(folder: Path) -> pd.DataFrame:
    """The manifest of the source "digits" as the next step reads it."""
    return ingest("digits", find_files(folder), MAX_PIXELS).to_pandas()


@pytest.fixture
def cleaned_of() -> Callable[..., pd.DataFrame]:
    """A folder → its cleaned manifest, by path, with settings of `clean` changed."""

    def make(folder: Path, policy: dict[str, str] | None = None, **changes: float) -> pd.DataFrame:
        config = CLEAN.model_dump() | changes
        config["policy"] |= policy or {}
        table = clean(manifest_of(folder), Clean.model_validate(config)).table
        table["path"] = table["path"].str.removeprefix("digits/")
        return table.set_index("path")

    return make


@pytest.fixture(scope="session")
def decoded() -> Callable[[str], np.ndarray]:
    """The pixels of an image in a data URI."""

    def decode(uri: str) -> np.ndarray:
        content = base64.b64decode(uri.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    return decode


@pytest.fixture
def nothing_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def photos(tmp_path: Path, photo: Image.Image) -> Path:
    """Four photographs of a cat, four of a dog, two files that are none, a copy."""
    folder = tmp_path / "photos"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(4):
            turned = photo.rotate(90 * number + 45 * (label == "dog"))
            turned.save(folder / label / f"{number}.png")
    (folder / "cat/broken\nname.png").write_bytes(b"x")
    (folder / "cat/empty.png").write_bytes(b"")
    shutil.copy(folder / "cat/0.png", folder / "cat/again.png")
    return folder
