"""500 malformed files of 30 kinds: none stops the ingest; each is a row, with a reason."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data.clean import clean
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
from tasks.params import load_params

MAX_PIXELS = 4_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
EACH = 16

Mutation = Callable[[bytes, random.Random], bytes]


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def cut(low: float, high: float) -> Mutation:
    return lambda data, rng: data[: int(len(data) * rng.uniform(low, high))]


def zeroed(low: float, high: float) -> Mutation:
    def change(data: bytes, rng: random.Random) -> bytes:
        start = int(len(data) * rng.uniform(low, high))
        return data[:start] + bytes(len(data) - start)

    return change


def flipped(count: int, low: float = 0.0, high: float = 1.0) -> Mutation:
    def change(data: bytes, rng: random.Random) -> bytes:
        values = bytearray(data)
        for _ in range(count):
            place = int((len(data) - 1) * rng.uniform(low, high))
            values[place] ^= 1 << rng.randrange(8)
        return bytes(values)

    return change


def spliced(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing in the middle."""
    start = rng.randrange(len(data) // 4, len(data) // 2)
    return data[:start] + data[start + rng.randrange(1, 200) :]


def doubled(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(10, len(data) // 2)
    return data[:start] + data[: rng.randrange(10, start + 10)] + data[start:]


def png(width: int, height: int, depth: int = 8, colour: int = 0, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    data = zlib.compress(body or bytes(64))
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


MUTATIONS: dict[str, Mutation] = {
    "cut in the header": cut(0.0, 0.02),
    "cut early": cut(0.02, 0.2),
    "cut in the middle": cut(0.3, 0.6),
    "cut late": cut(0.8, 0.98),
    "last byte missing": lambda data, rng: data[:-1],
    "zeroed from the middle": zeroed(0.3, 0.7),
    "zeroed after the header": zeroed(0.02, 0.1),
    "a bit of the header flipped": flipped(1, 0.0, 0.02),
    "ten bits of the header flipped": flipped(10, 0.0, 0.05),
    "a hundred bits flipped": flipped(100),
    "a piece missing": spliced,
    "a piece twice": doubled,
    "another file's head": lambda data, rng: b"GIF89a" + data[6:],
    "text before the image": lambda data, rng: b"HTTP/1.1 200 OK\r\n\r\n" + data,
    "reversed": lambda data, rng: data[::-1],
    "the second half alone": lambda data, rng: data[len(data) // 2 :],
    "random bytes": lambda data, rng: rng.randbytes(2000),
    "zero bytes": lambda data, rng: b"",
    "one byte": lambda data, rng: data[:1],
    "only zeros": lambda data, rng: bytes(3000),
    "text": lambda data, rng: b"<html><body>404 Not Found</body></html>",
    "a header that says huge": lambda data, rng: png(rng.randrange(40_000, 2**31), 50_000),
    "a header that says nothing": lambda data, rng: png(0, rng.randrange(3)),
    "an impossible depth": lambda data, rng: png(8, 8, rng.choice([3, 7, 99]), rng.randrange(9)),
    "a bomb": lambda data, rng: png(30_000, 30_000, 1, 0, bytes(30_000 * 3_752)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.datasets import load_sample_images

    photo = Image.fromarray(load_sample_images().images[0]).resize((160, 107))
    rng = random.Random(0)
    root = tmp_path_factory.mktemp("malformed")
    for label in ("bad", "good"):
        (root / label).mkdir()
    for index, kind in enumerate(FORMATS):
        photo.crop((index, 0, 150 + index, 100)).save(root / f"good/{index}.{kind.lower()}", kind)
    whole = [encoded(photo, kind) for kind in FORMATS]
    bomb = MUTATIONS["a bomb"](b"", rng)  # 112 MB to compress: once
    for name, change in MUTATIONS.items():
        for number in range(EACH):
            data = bomb if name == "a bomb" else change(whole[number % len(whole)], rng)
            extension = rng.choice(["jpg", "png", "webp", "bmp", "tif", "gif"])
            (root / "bad" / f"{name} {number}.{extension}").write_bytes(data)
    for number in range(EACH):
        odd = root / "bad"
        (odd / f"loop {number}.png").symlink_to(f"loop {number}.png")
        (odd / f"dangling {number}.png").symlink_to("nowhere.png")
        (odd / f"two\nlines {number}.png").write_bytes(whole[1][: 500 * number])
        (odd / f"🐈 {number} ".ljust(60, "é")).write_bytes(whole[0][: 100 * number])
        (odd / f"{number:03d}".ljust(250, "x")).write_bytes(whole[2][: 100 * number])
        (root / "bad" / f"not utf8 {number}.png").write_bytes(whole[1])
        os.rename(odd / f"not utf8 {number}.png", os.fsencode(odd) + b"/caf\xe9 %d.png" % number)
    os.mkfifo(root / "bad/pipe.png")
    (root / "bad/up").symlink_to("..")
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_every_malformed_file_is_a_row_and_none_stops_the_ingest(
    folder: Path, workers: int
) -> None:
    table = ingest("mine", find_files(folder), MAX_PIXELS, workers).to_pandas()
    names = {os.fsencode(name) for name in os.listdir(folder / "bad")} - {b"up"}
    bad = table[table["label"] == "bad"]
    assert len(bad) == len(names) >= 496
    assert len({path.rsplit(" ", 1)[0] for path in bad["path"]}) >= 25
    accounted = bad["error"].notna() | bad["pixel_hash"].notna()
    assert accounted.all()
    assert (bad["error"].notna() & bad["pixel_hash"].notna()).sum() == 0
    assert bad.loc[bad["error"].notna(), "error"].str.len().min() > 10
    certain = bad["path"].str.contains("zero bytes|only zeros|random bytes|text \\d|bomb|huge|loop")
    assert bad.loc[certain, "error"].notna().all()
    assert table.loc[table["label"] == "good", "error"].isna().all()


def test_a_readable_file_among_them_keeps_its_pixels(folder: Path) -> None:
    """What can be decoded has a size, and statistics that are numbers."""
    table = ingest("mine", find_files(folder), MAX_PIXELS, 1).to_pandas()
    read = table[table["error"].isna()]
    assert (read["width"] * read["height"] <= MAX_PIXELS).all()
    assert np.isfinite(read[["brightness", "contrast", "sharpness", "saturation"]]).all(axis=None)


def test_cleaning_accounts_for_every_one(folder: Path) -> None:
    config = load_params(Path(__file__).parents[2] / "conf/params.yaml").clean
    manifest = ingest("mine", find_files(folder), MAX_PIXELS, 1).to_pandas()
    table = clean(manifest, config).table
    assert len(table) == len(manifest)
    unreadable = table["error"].notna()
    assert not table.loc[unreadable, "keep"].any()
    assert (table.loc[unreadable, "reason"] == "unreadable").all()
