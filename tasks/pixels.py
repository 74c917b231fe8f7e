"""The one way from an image file to pixels: preparation, server and edge all use it.

Needs Pillow and numpy only. `read` gives what a person sees (EXIF orientation applied,
any mode as 8-bit RGB), `fit` brings it to the training size, `statistics` describes it.
"""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Literal

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
_STATISTICS_SIDE = 256  # larger images are measured on a box-filtered reduction
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


def read(source: Path | str | bytes, max_pixels: int) -> Pixels:
    """Decode an image to uint8 H×W×3 RGB, upright.

    Alpha is composited over white, 16-bit grey is scaled to 8 bits, an animation gives its
    first frame. Raises UnreadableImage; a file over `max_pixels` is refused undecoded.
    """
    return read_with_mode(source, max_pixels)[0]


def read_with_mode(source: Path | str | bytes, max_pixels: int) -> tuple[Pixels, str]:
    """As `read`, with the file's own colour mode in Pillow's terms ("RGB", "L", "P", …)."""
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
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image))), mode
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image in a known format ({', '.join(_FORMATS)})") from None
    except _DECODER_ERRORS as error:
        raise UnreadableImage(f"broken image: {error}") from None


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


def statistics(image: Pixels) -> npt.NDArray[np.float32]:
    """The image's STATISTICS, float32 [5]: what drift and cleaning look at.

    Brightness (mean luminance), contrast (its standard deviation), sharpness (variance of
    the 4-neighbour Laplacian, Pech-Pacheco et al. 2000) and saturation are on the 0..1
    scale of pixel values; the aspect ratio is width over height.
    """
    height, width = image.shape[:2]
    factor = -(-max(height, width) // _STATISTICS_SIDE)
    if factor > 1:
        image = np.asarray(Image.fromarray(image).reduce(factor))
    rgb = image.astype(np.float32) * np.float32(1 / 255)
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    # pairwise on planes: a reduction over an axis of 3 takes thirty times as long
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    highest = np.maximum(np.maximum(red, green), blue)
    chroma = highest - np.minimum(np.minimum(red, green), blue)
    saturation = np.divide(chroma, highest, out=np.zeros_like(chroma), where=highest > 0).mean()
    values = (grey.mean(), grey.std(), _laplacian_variance(grey), saturation, width / height)
    return np.array(values, np.float32)


def _laplacian_variance(grey: npt.NDArray[np.float32]) -> float:
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    ring = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((ring - 4 * centre).var())


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
