"""The one way from an image file to pixels: preparation, server and edge all use it.

Needs Pillow and numpy only. `read` gives what a person sees (EXIF orientation applied,
any mode as 8-bit RGB), `fit` brings it to the training size, `statistics` describes it.
"""

import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.errors import DataError

# Pillow would warn or refuse at a size of its own; `max_pixels` is the one limit.
Image.MAX_IMAGE_PIXELS = None

Pixels = npt.NDArray[np.uint8]
Resize = Literal["stretch", "letterbox"]
STATISTICS = ("brightness", "contrast", "sharpness", "saturation", "aspect_ratio")

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ANIMATED = ("PNG", "WEBP", "TIFF", "GIF")
_STATISTICS_SIDE = 256  # larger images are measured on a box-filtered reduction
_TOGETHER = 16  # images measured in one go: what a processor keeps in its cache
_DECODER_ERRORS = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadableImage(DataError):
    """A file that is not an image, or a broken or too large one; the message says which."""


class Decoded(NamedTuple):
    """An image, its file's colour mode in Pillow's terms, and what a user should know of it."""

    pixels: Pixels
    mode: str
    note: str | None


def read(source: Path | str | bytes, max_pixels: int) -> Pixels:
    """Decode an image to uint8 H×W×3 RGB, upright.

    Alpha is composited over white, 16-bit grey is scaled to 8 bits, an animation gives its
    first frame. Raises UnreadableImage; a file over `max_pixels` is refused undecoded.
    """
    return decode(source, max_pixels).pixels


def decode(source: Path | str | bytes, max_pixels: int) -> Decoded:
    """As `read`, with the file's own colour mode, and a note when it holds more images."""
    try:
        if (not isinstance(source, bytes) and os.path.getsize(source) == 0) or source == b"":
            raise UnreadableImage("empty file (0 bytes)")
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(stream, formats=_FORMATS) as image:
            mode = image.mode
            if image.width * image.height > max_pixels:
                raise UnreadableImage(
                    f"{image.width}x{image.height} pixels exceed the limit of {max_pixels}"
                )
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(_to_rgb(image))
            return Decoded(pixels, mode, _several(image))
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image in a known format ({', '.join(_FORMATS)})") from None
    except _DECODER_ERRORS as error:
        raise UnreadableImage(f"broken image: {error}") from None


def crop(image: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    """The part of uint8 H×W×3 inside `box` (left, top, right, bottom) and the image.

    Raises UnreadableImage when that is empty.
    """
    left, top, right, bottom = box
    part = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if not part.size:
        height, width = image.shape[:2]
        raise UnreadableImage(f"the box {box} lies outside the image of {width}x{height} pixels")
    return part


def _several(image: Image.Image) -> str | None:
    """Asked last: it may seek, and a broken second frame must not cost the first."""
    if image.format not in _ANIMATED:
        return None
    try:
        several = getattr(image, "is_animated", False)
    except _DECODER_ERRORS:
        return None
    word = "pages" if image.format == "TIFF" else "frames"
    return f"the file has several {word}; the first is used" if several else None


def fit(image: Pixels, size: int, resize: Resize) -> Pixels:
    """Resize uint8 H×W×3 to size×size×3, antialiased bilinear.

    "stretch" ignores the aspect ratio; "letterbox" keeps it and pads with mid-grey.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if resize == "stretch":
        return _resized(image, size, size)
    scale = size / max(height, width)
    inner = _resized(image, max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = np.full((size, size, 3), 127, np.uint8)
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


class Sample(NamedTuple):
    """What `measure` needs of an image: its pixels, at most 256 a side, and width over height."""

    pixels: Pixels
    aspect_ratio: float


def statistics(image: Pixels) -> npt.NDArray[np.float32]:
    """The image's STATISTICS, float32 [5]: what drift and cleaning look at.

    Brightness (mean luminance), contrast (its standard deviation), sharpness (variance of
    the 4-neighbour Laplacian, Pech-Pacheco et al. 2000) and saturation are on the 0..1
    scale of pixel values; the aspect ratio is width over height.
    """
    (values,) = measure([sample(image)])
    return np.asarray(values, np.float32)


def sample(image: Pixels) -> Sample:
    """Reduce a uint8 H×W×3 image to what its statistics are taken from."""
    height, width = image.shape[:2]
    factor = -(-max(height, width) // _STATISTICS_SIDE)
    if factor > 1:
        image = np.asarray(Image.fromarray(image).reduce(factor))
    return Sample(image, width / height)


def measure(samples: Sequence[Sample]) -> npt.NDArray[np.float32]:
    """The `statistics` of many images, float32 N×5, those of one size at a time.

    An image's values do not depend on its company. Three times as fast as one by one.
    """
    measured = np.empty((len(samples), len(STATISTICS)), np.float32)
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(samples):
        shapes.setdefault(one.pixels.shape, []).append(index)
    for indices in shapes.values():
        for some in (indices[k : k + _TOGETHER] for k in range(0, len(indices), _TOGETHER)):
            measured[some, :4] = _measure(np.stack([samples[k].pixels for k in some]))
    measured[:, 4] = [one.aspect_ratio for one in samples]
    return measured


def _measure(images: Pixels) -> npt.NDArray[np.float32]:
    """Brightness, contrast, sharpness and saturation of uint8 N×H×W×3, float32 N×4."""
    planes = np.moveaxis(images, 3, 0).astype(np.float32, order="C") * np.float32(1 / 255)
    red, green, blue = planes.reshape(3, len(images), -1)
    # sums of products, not a matrix product: that one rounds by the size of the batch
    grey = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    highest = np.maximum(np.maximum(red, green), blue)
    chroma = highest - np.minimum(np.minimum(red, green), blue)
    saturation = np.divide(chroma, highest, out=np.zeros_like(chroma), where=highest > 0)
    sharpness = _laplacian_variance(grey.reshape(images.shape[:3]))
    return np.stack([grey.mean(1), grey.std(1), sharpness, saturation.mean(1)], axis=1)


def _laplacian_variance(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if min(grey.shape[1:]) < 3:
        return np.zeros(len(grey), np.float32)
    centre = grey[:, 1:-1, 1:-1]
    ring = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    variance: npt.NDArray[np.float32] = (ring - 4 * centre).reshape(len(grey), -1).var(1)
    return variance


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _deep_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits; integer data within 8 bits are taken as they are."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257
    elif image.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
