"""The one way from an image file to pixels: preparation, server and edge all use it.

Needs Pillow and numpy only. `read` gives what a person sees (EXIF orientation applied,
any mode as 8-bit RGB), `fit` makes it the network's input, `statistics` describes it.
"""

import io
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.errors import DataError
from tasks.normalise import MID_GREY, normalise
from tasks.normalise import Pixels as Pixels

# Pillow would warn or refuse at a size of its own; `max_pixels` is the one limit.
Image.MAX_IMAGE_PIXELS = None

Resize = Literal["stretch", "letterbox", "crop"]
Colour = Literal["rgb", "grey"]
UNCHANGED: Mapping[str, Any] = MappingProxyType({"method": "none"})
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


class Images(Protocol):
    """uint8 N×S×S×3: an array in memory, or one that is read (and decoded) where it is indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, S, S, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any:
        """Pixels: of one image by a number, of several by a slice or an array of numbers."""


class UnreadableImage(DataError):
    """A file that is not an image, or a broken or too large one; the message says which."""


class Decoded(NamedTuple):
    """An image, its file's colour mode in Pillow's terms, and what a user should know of it.

    `picture` holds the same pixels as Pillow's own image, for what Pillow is to do with them.
    """

    pixels: Pixels
    mode: str
    note: str | None
    picture: Image.Image


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
            picture = _to_rgb(image)
            pixels = np.asarray(picture)
            return Decoded(pixels, mode, _several(image), picture)
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image in a known format ({', '.join(_FORMATS)})") from None
    except _DECODER_ERRORS as error:
        raise UnreadableImage(f"broken image: {error}") from None


def cut(image: Pixels, box: tuple[int, int, int, int]) -> Pixels:
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


def fit(
    image: Pixels,
    size: int,
    resize: Resize,
    colour: Colour = "rgb",
    normalisation: Mapping[str, Any] = UNCHANGED,
    margin: int = 0,
) -> Pixels:
    """Make a uint8 H×W×3 image the network's input, size×size×3.

    First resized, antialiased bilinear: "stretch" ignores the aspect ratio; "letterbox" keeps
    it and pads with mid-grey; "crop" brings the shorter side to size + margin and takes the
    middle. "grey" then puts the luminance (ITU-R 601-2) in all three channels. Last comes the
    domain normalisation (`method` and its values, see tasks/normalise.py), of the picture
    without the padding but with the margin.
    """
    side = size + margin
    picture = _resized(image, *_scaled(image.shape, side, resize))
    if colour == "grey":
        luminance = np.asarray(Image.fromarray(picture).convert("L"))
        picture = np.repeat(luminance[..., None], 3, axis=2)
    return crop(_padded(normalise(picture, **normalisation), side), size)


def crop(images: Pixels, size: int) -> Pixels:
    """The middle size×size of uint8 H×W×3 or N×H×W×3 pixels."""
    top, left = (images.shape[-3] - size) // 2, (images.shape[-2] - size) // 2
    return images[..., top : top + size, left : left + size, :]


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


Box = tuple[float, float, float, float]


def _scaled(shape: tuple[int, ...], side: int, resize: Resize) -> tuple[int, int, Box]:
    """Width and height of the picture before it is padded, and the part of the image it shows."""
    height, width = shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    if resize == "stretch":
        return side, side, whole
    if resize == "crop":
        shorter = min(height, width)
        left, top = (width - shorter) / 2, (height - shorter) / 2
        return side, side, (left, top, left + shorter, top + shorter)
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale)), whole


def _resized(image: Pixels, width: int, height: int, box: Box) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    method = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), method, box))


def _padded(image: Pixels, side: int) -> Pixels:
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    canvas = np.full((side, side, 3), MID_GREY, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = image
    return canvas


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _deep_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "RGB" and image.format not in _ANIMATED:  # whose frames may be sought later
        return image
    return image.convert("RGB")


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits; integer data within 8 bits are taken as they are."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257
    elif image.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
