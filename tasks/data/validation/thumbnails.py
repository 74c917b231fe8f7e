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
    return read(Path(config.path) / str(row["path"]), config.max_pixels)


def figure(row: Mapping[str, Any], config: Ingest, lines: tuple[str, ...]) -> str:
    """An HTML figure of a manifest row with lines of text below.

    An image that cannot be read is a box with the reason: the manifest's, or today's.
    """
    try:
        picture = f'<img src="{data_address(read_image(row, config))}" alt="">'
    except (UnreadableImage, OSError) as error:
        known = row.get("error")
        reason = known if isinstance(known, str) else getattr(error, "strerror", None) or error
        picture = f'<span class="no-picture">cannot be shown: {escape(str(reason))}</span>'
    text = "<br>".join(escape(line) for line in lines)
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def data_address(image: Pixels) -> str:
    """A uint8 H×W×3 image, at most SIDE pixels a side (small ones enlarged), as a data: address."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    stream = io.BytesIO()
    Image.fromarray(image).resize(size, how).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
