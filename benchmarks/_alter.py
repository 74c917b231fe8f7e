"""Altered copies of images, as they come about in practice: the eight kinds of near-duplicates.

Every function takes an image and a random generator, draws how strong the alteration is, and
gives the altered image with the JPEG quality it is to be saved at.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

Altered = tuple[Image.Image, int]
Alteration = Callable[[Image.Image, np.random.Generator], Altered]

_FINE = 95  # the quality of what is not about JPEG


def jpeg(image: Image.Image, random: np.random.Generator) -> Altered:
    """Encoded again at quality 30 to 90."""
    return image, int(random.integers(30, 91))


def resize(image: Image.Image, random: np.random.Generator) -> Altered:
    """Both sides times the same 0.8 to 1.2, at least one pixel more or less."""
    factor = 1 + random.uniform(0.04, 0.2) * random.choice((-1, 1))
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC), _FINE


def crop(image: Image.Image, random: np.random.Generator) -> Altered:
    """Up to 5 % off each of the four sides, together at least one pixel."""
    cut = random.integers(0, (0.05 * np.array([image.width, image.height] * 2)).astype(int) + 1)
    if not cut.any():
        cut[random.integers(4)] = 1
    left, top, right, bottom = cut.tolist()
    return image.crop((left, top, image.width - right, image.height - bottom)), _FINE


def brightness(image: Image.Image, random: np.random.Generator) -> Altered:
    """Every value times 0.85 to 1.15."""
    factor = 1 + random.uniform(0.03, 0.15) * random.choice((-1, 1))
    return ImageEnhance.Brightness(image).enhance(factor), _FINE


def contrast(image: Image.Image, random: np.random.Generator) -> Altered:
    """The distance of every value from the mean times 0.7 to 1.3."""
    factor = 1 + random.uniform(0.05, 0.3) * random.choice((-1, 1))
    return ImageEnhance.Contrast(image).enhance(factor), _FINE


def rotation(image: Image.Image, random: np.random.Generator) -> Altered:
    """Turned by up to 3 degrees either way; what comes in at the corners is black."""
    degrees = random.uniform(0.5, 3) * random.choice((-1, 1))
    return image.rotate(degrees, Image.Resampling.BICUBIC), _FINE


def noise(image: Image.Image, random: np.random.Generator) -> Altered:
    """Gaussian noise of 1 to 4 % of the range on every value."""
    pixels = np.asarray(image, np.float64)
    noisy = pixels + random.normal(0, 255 * random.uniform(0.01, 0.04), pixels.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)), _FINE


def watermark(image: Image.Image, random: np.random.Generator) -> Altered:
    """A word in translucent white or black near one of the corners, a sixth of the height."""
    text, ink = Image.new("L", image.size), int(random.choice((0, 255)))
    font = ImageFont.load_default(max(6, image.height // 6))
    left, _, right, bottom = font.getbbox("sample")
    x = random.uniform(0, max(1, image.width - (right - left)))
    y = random.choice((0.03, 0.97)) * (image.height - bottom)
    opacity = int(255 * random.uniform(0.3, 0.6))
    ImageDraw.Draw(text).text((x - left, y), "sample", fill=opacity, font=font)
    return Image.composite(
        Image.new(image.mode, image.size, (ink,) * len(image.getbands())), image, text
    ), _FINE


KINDS: dict[str, Alteration] = {
    function.__name__: function
    for function in (jpeg, resize, crop, brightness, contrast, rotation, noise, watermark)
}
