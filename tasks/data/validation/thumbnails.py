"""Small pictures of a table's images for a web page, as data: addresses."""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.pixels import Pixels, UnreadableImage, read
from tasks.schema import Ingest

SIDE = 96


def read_image(row: Mapping[str, Any], config: Ingest) -> Pixels:
    """The image of a manifest row, uint8 H×W×3; raises UnreadableImage or OSError."""
    return read((Path(config.path) / str(row["path"])).read_bytes(), config.max_pixels)


def figure(row: Mapping[str, Any], config: Ingest, lines: tuple[str, ...]) -> str:
    """An HTML figure of a manifest row with lines of text below.

    An image that could not be read, or cannot any more, is a box with the reason.
    """
    picture = _box(row["error"]) if isinstance(row.get("error"), str) else _picture(row, config)
    text = "<br>".join(escape(line) for line in lines)
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def _picture(row: Mapping[str, Any], config: Ingest) -> str:
    try:
        return f'<img src="{data_address(read_image(row, config))}" alt="">'
    except UnreadableImage as error:
        return _box(str(error))
    except OSError as error:
        return _box(error.strerror or str(error))


def _box(reason: str) -> str:
    return f'<span class="no-picture">cannot be shown: {escape(reason)}</span>'


def data_address(image: Pixels) -> str:
    """A uint8 H×W×3 image, at most SIDE pixels a side (small ones enlarged), as a data: address."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    stream = io.BytesIO()
    Image.fromarray(image).resize(size, how).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
