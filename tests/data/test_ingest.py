import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data.describe import Row, describe_all, pixel_hash
from tasks.data.digits import write_digits
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
from tasks.data.sources.found import Found
from tasks.errors import DataError

MAX_PIXELS = 50_000_000


def rows_of(folder: Path, workers: int | None = None) -> dict[object, Row]:
    rows = ingest("mine", find_files(folder), MAX_PIXELS, workers).to_pylist()
    return {
        row["path"].removeprefix("mine/"): {k: v for k, v in row.items() if v is not None}
        for row in rows
    }


def huge_png(side: int) -> bytes:
    """A valid PNG of side×side black pixels that is small as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path: Path, photo: Image.Image) -> Path:
    root = tmp_path / "images"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        photo.save(root / label / "a.jpg")
    return root


def test_digits_are_the_same_bytes_every_time(tmp_path: Path, digits_folder: Path) -> None:
    assert write_digits(tmp_path / "again") == 1797
    for file in digits_folder.rglob("*.png"):
        assert (
            file.read_bytes() == (tmp_path / "again" / file.relative_to(digits_folder)).read_bytes()
        )


def test_row_describes_the_image(folder: Path, photo: Image.Image) -> None:
    photo.convert("L").save(folder / "cat/grey.png")
    row = rows_of(folder)["cat/grey.png"]
    file = folder / "cat/grey.png"
    assert "error" not in row
    assert (row["width"], row["height"], row["mode"], row["label"]) == (640, 427, "L", "cat")
    assert row["bytes"] == file.stat().st_size
    assert row["file_hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    grey = np.asarray(photo.convert("L").convert("RGB"))
    assert row["pixel_hash"] == pixel_hash(grey)
    assert row["brightness"] == pytest.approx(grey.mean() / 255, abs=0.01)
    assert row["aspect_ratio"] == pytest.approx(640 / 427)


def test_same_pixels_in_another_format_hash_alike(folder: Path, photo: Image.Image) -> None:
    photo.save(folder / "cat/b.png")
    photo.save(folder / "dog/b.bmp")
    rows = rows_of(folder)
    assert rows["cat/b.png"]["pixel_hash"] == rows["dog/b.bmp"]["pixel_hash"]
    assert rows["cat/b.png"]["file_hash"] != rows["dog/b.bmp"]["file_hash"]


def test_pixel_hash_sees_the_shape() -> None:
    assert pixel_hash(np.zeros((2, 8, 3), np.uint8)) != pixel_hash(np.zeros((4, 4, 3), np.uint8))


def test_bad_files_are_rows_with_a_reason(folder: Path, photo: Image.Image) -> None:
    whole = (folder / "cat/a.jpg").read_bytes()
    (folder / "cat/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cat/empty.png").write_bytes(b"")
    (folder / "cat/text.jpg").write_text("not an image")
    (folder / "cat/huge.png").write_bytes(huge_png(30_000))
    (folder / "cat/dangling.png").symlink_to("nowhere.png")
    (folder / "cat/itself.png").symlink_to("itself.png")
    os.mkfifo(folder / "cat/pipe.png")
    (folder / "README.txt").write_text("about these images")
    reasons = {path: str(row["error"]) for path, row in rows_of(folder).items() if row.get("error")}
    assert set(reasons) == {
        *(f"cat/{name}" for name in ("truncated.jpg", "text.jpg", "empty.png", "huge.png")),
        *(f"cat/{name}" for name in ("dangling.png", "itself.png", "pipe.png")),
        "README.txt",
    }
    assert "truncated" in reasons["cat/truncated.jpg"]
    assert "empty" in reasons["cat/empty.png"]
    assert "not an image" in reasons["cat/text.jpg"]
    assert "30000x30000" in reasons["cat/huge.png"]
    assert "not a regular file" in reasons["cat/pipe.png"]
    assert "outside the class folders" in reasons["README.txt"]


def test_a_file_that_may_not_be_read_is_a_row(folder: Path) -> None:
    file = folder / "cat/a.jpg"
    file.chmod(0)
    for parent in file.parents:  # pytest's folders are the owner's alone
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        (row,) = describe_all([Found("cat/a.jpg", "cat", str(file))], MAX_PIXELS)
    finally:
        os.seteuid(user)
    assert row["error"] == "cannot be read: Permission denied"
    assert "pixel_hash" not in row


def test_odd_names_survive(folder: Path, photo: Image.Image) -> None:
    names = ["two\nlines.png", "🐈.png", "spa ce'\"`$.png", "x" * 200 + ".png"]
    for name in names:
        photo.save(folder / "cat" / name)
    os.rename(folder / "dog/a.jpg", os.fsencode(folder / "dog") + b"/caf\xe9.jpg")
    rows = rows_of(folder)
    for name in names:
        assert rows[f"cat/{name}"].get("error") is None
    assert "UTF-8" in str(rows["dog/caf\\xe9.jpg"]["error"])


def test_litter_is_ignored_and_nested_folders_belong_to_the_class(
    folder: Path, photo: Image.Image
) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (folder / "cat" / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git/x.png").write_bytes(b"x")
    (folder / "cat/2024/may").mkdir(parents=True)
    photo.save(folder / "cat/2024/may/b.png")
    rows = rows_of(folder)
    assert set(rows) == {"cat/a.jpg", "dog/a.jpg", "cat/2024/may/b.png"}
    assert rows["cat/2024/may/b.png"]["label"] == "cat"


def test_link_loops_end(folder: Path) -> None:
    (folder / "cat/up").symlink_to("..")
    (folder / "cat/self").symlink_to(".")
    (folder / "dog/more").symlink_to("../cat")
    assert set(rows_of(folder)) == {"cat/a.jpg", "dog/a.jpg", "dog/more/a.jpg"}


def test_workers_and_file_order_change_nothing(digits_folder: Path, tmp_path: Path) -> None:
    reversed_copy = tmp_path / "copy"
    for file in sorted(digits_folder.rglob("*.png"), reverse=True):
        target = reversed_copy / file.relative_to(digits_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    alone = ingest("digits", find_files(digits_folder), MAX_PIXELS, workers=1)
    assert ingest("digits", find_files(reversed_copy), MAX_PIXELS, workers=2) == alone
    paths = alone["path"].to_pylist()
    assert paths == sorted(paths)


def make_missing(root: Path) -> None:
    pass


def make_empty(root: Path) -> None:
    root.mkdir()


def make_file(root: Path) -> None:
    root.write_text("x")


def make_flat(root: Path) -> None:
    root.mkdir()
    (root / "a.png").write_bytes(b"x")


def make_hollow(root: Path) -> None:
    (root / "cat").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_missing, "does not exist"),
        (make_empty, "is empty"),
        (make_file, "is a file"),
        (make_flat, "no folder"),
        (make_hollow, "class folders of"),
    ],
)
def test_a_wrong_folder_is_named_with_the_way_out(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    root = tmp_path / "images"
    make(root)
    with pytest.raises(DataError, match=words) as caught:
        find_files(root)
    assert str(root) in str(caught.value)
    assert "visionloop init --data PATH" in str(caught.value)


@pytest.mark.parametrize("kind", ["tiff", "gif", "png", "webp"])
def test_of_several_frames_the_first_is_taken_and_the_note_says_so(
    folder: Path, photo: Image.Image, kind: str
) -> None:
    other = photo.rotate(180)
    photo.save(folder / f"cat/many.{kind}", save_all=True, append_images=[other, other])
    with Image.open(folder / f"cat/many.{kind}") as image:
        first = np.asarray(image.convert("RGB"))
    photo.save(folder / f"cat/one.{kind}")
    rows = rows_of(folder)
    row = rows[f"cat/many.{kind}"]
    assert row["pixel_hash"] == pixel_hash(first)
    word = "pages" if kind == "tiff" else "frames"
    assert row["note"] == f"the file has several {word}; the first is used"
    assert "note" not in rows[f"cat/one.{kind}"]
    grey = np.frombuffer(row["thumbnail"], np.uint8).astype(int)
    alone = Image.fromarray(first).convert("L").reduce(5).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.abs(grey - np.asarray(alone).ravel()).max() == 0, "the thumbnail is of that frame"
