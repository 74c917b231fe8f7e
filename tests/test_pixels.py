"""One way from file to pixels: every format, mode and orientation, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tasks.pixels import (
    STATISTICS,
    UnreadableImage,
    decode,
    fit,
    measure,
    read,
    sample,
    statistics,
)

LIMIT = 50_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def scene() -> np.ndarray:
    """30 high, 40 wide; the four corners are red, green, blue and white."""
    image = np.full((30, 40, 3), 90, np.uint8)
    image[:10, :10], image[:10, -10:] = (255, 0, 0), (0, 255, 0)
    image[-10:, :10], image[-10:, -10:] = (0, 0, 255), (255, 255, 255)
    return image


# How a camera stores the upright scene for each EXIF orientation (TIFF 6.0, tag 274).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(scene, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene)))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    found = read(encoded(stored, kind, exif=exif, **options), LIMIT)
    assert found.shape == scene.shape
    np.testing.assert_allclose(found.astype(int), scene, atol=6 if kind == "JPEG" else 0)


def test_path_and_bytes_give_the_same(scene, tmp_path):
    data = encoded(Image.fromarray(scene))
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "a.png", LIMIT), read(data, LIMIT))
    np.testing.assert_array_equal(read(str(tmp_path / "a.png"), LIMIT), scene)


def test_16_bit_grey_keeps_its_range():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    found, mode, *_ = decode(encoded(Image.fromarray(values)), LIMIT)
    assert mode.startswith("I")
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 128, 255])
    assert (found == found[..., :1]).all()


def test_dark_16_bit_grey_is_not_taken_for_8_bit():
    values = np.full((4, 4), 200, np.uint16)  # of 65,535: almost black
    assert read(encoded(Image.fromarray(values)), LIMIT).max() == 1
    assert read(encoded(Image.fromarray(values), "TIFF"), LIMIT).max() == 1


def test_float_tiff_of_shares_is_scaled():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    found = read(encoded(Image.fromarray(values), "TIFF"), LIMIT)
    np.testing.assert_array_equal(found[0, :, 0], [0, 128, 255])


def test_palette_with_transparency_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    found, mode, *_ = decode(encoded(image, transparency=1), LIMIT)
    assert mode == "P"
    assert found.tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    image.putpixel((2, 0), (0, 0, 0, 0))
    found = read(encoded(image.convert(mode)), LIMIT)
    assert found[0, :, 0].tolist() == [0, 127, 255]


def test_cmyk_jpeg_is_not_inverted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta + yellow: red
    found, mode, *_ = decode(encoded(image, "JPEG", quality=100), LIMIT)
    assert mode == "CMYK"
    np.testing.assert_allclose(found[4, 4].astype(int), [255, 0, 0], atol=4)


@pytest.mark.parametrize(("mode", "white"), [("1", 1), ("L", 255)])
def test_grey_and_bilevel_become_rgb(mode, white):
    image = Image.new(mode, (3, 2))
    image.putpixel((2, 1), white)
    found = read(encoded(image), LIMIT)
    assert found.shape == (2, 3, 3)
    assert found.dtype == np.uint8
    assert found[1, 2].tolist() == [255] * 3
    assert found.sum() == 3 * 255


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read(data, LIMIT) == [255, 0, 0]).all()


def png_header(width: int, height: int) -> bytes:
    """A valid PNG of a few bytes that claims a size, as a bomb does."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_by_its_header():
    with pytest.raises(UnreadableImage, match="30000x30000 pixels exceed the limit of 50000000"):
        read(png_header(30_000, 30_000), LIMIT)


def test_the_limit_itself_is_allowed(scene):
    data = encoded(Image.fromarray(scene))
    assert read(data, 1200).shape == scene.shape
    with pytest.raises(UnreadableImage, match="40x30 pixels exceed the limit of 1199"):
        read(data, 1199)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(UnreadableImage, match=r"broken image|not an image"):
        read(data[: len(data) // 2], LIMIT)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"hello, world", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%PDF-1.7", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data, said, tmp_path):
    with pytest.raises(UnreadableImage, match=said):
        read(data, LIMIT)
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(UnreadableImage, match=said):
        read(tmp_path / "x.png", LIMIT)


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_path_that_is_no_file_is_refused(tmp_path, what):
    path = tmp_path if what == "folder" else tmp_path / "missing.png"
    with pytest.raises(UnreadableImage):
        read(path, LIMIT)


def test_random_damage_never_escapes_as_another_error(scene):
    """500 images with random bytes overwritten: pixels or UnreadableImage, nothing else."""
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        data = encoded(Image.fromarray(scene), kind)
        for _ in range(100):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 6):
                damaged[at] = rng.integers(0, 256)
            try:
                found = read(bytes(damaged), 10_000_000)
            except UnreadableImage:
                continue
            assert found.ndim == 3
            assert found.dtype == np.uint8


def test_stretch_fills_the_square(scene):
    found = fit(scene, 16, "stretch")
    assert found.shape == (16, 16, 3)
    assert found[0, 0].tolist() == [255, 0, 0]
    assert found[-1, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("shape", "bands"), [((8, 16), "rows"), ((16, 8), "columns")])
def test_letterbox_keeps_the_aspect_ratio(shape, bands):
    found = fit(np.full((*shape, 3), 255, np.uint8), 32, "letterbox")
    white = (found == 255).all(axis=2)
    assert white.sum() == 32 * 16
    axis = 1 if bands == "rows" else 0
    assert white.all(axis=axis).tolist() == [False] * 8 + [True] * 16 + [False] * 8
    assert (found[~white] == 127).all()


def test_a_needle_survives_letterboxing():
    assert fit(np.full((1000, 2, 3), 200, np.uint8), 16, "letterbox").max() == 200


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_an_image_of_the_right_size_is_left_alone(resize):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(fit(image, 16, resize), image)


def test_reduction_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit(stripes, 16, "stretch").astype(int) - 127).max() <= 20


def described(image: np.ndarray) -> dict[str, float]:
    return dict(zip(STATISTICS, statistics(image).tolist(), strict=True))


def test_statistics_of_known_images():
    red = described(np.broadcast_to(np.uint8([255, 0, 0]), (10, 20, 3)))
    assert red == pytest.approx(
        {"brightness": 0.299, "contrast": 0, "sharpness": 0, "saturation": 1, "aspect_ratio": 2},
        abs=1e-6,
    )
    board = np.indices((64, 64)).sum(0) % 2 * 255
    checker = described(np.dstack([board] * 3).astype(np.uint8))
    assert checker["contrast"] == pytest.approx(0.5, abs=1e-6)
    assert checker["sharpness"] == pytest.approx(16, rel=1e-3)
    assert checker["saturation"] == 0


def test_an_images_statistics_do_not_depend_on_its_company(digit_images: np.ndarray):
    """To the last bit: a manifest must not change with the order or number of its files."""
    random = np.random.default_rng(0)
    others = [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((31, 17), (300, 290))]
    images = [*digit_images[:70], *others, *others]
    together = measure([sample(image) for image in images])
    np.testing.assert_array_equal(together, [statistics(image) for image in images])


def test_blur_lowers_sharpness():
    from PIL import ImageFilter

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    blurred = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
    assert described(blurred)["sharpness"] < described(noise)["sharpness"] / 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (2, 2), (3000, 10)])
def test_statistics_of_odd_shapes_are_finite(shape):
    values = statistics(np.full((*shape, 3), 128, np.uint8))
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values[4] == pytest.approx(shape[1] / shape[0])
