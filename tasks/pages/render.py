"""Renders the templates of the HTML pages: escaping, number formats, images inside the page."""

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.pixels import Pixels

TINY = 96  # pixels: up to here images are stored as they are and enlarged by the browser
_THUMBNAIL = 160


def template(name: str, folder: Path) -> Any:
    """A template of `folder`, with the pages' number formats as filters.

    It may include what lies beside this module: `style.css.j2`. HTML is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "size": size, "cell": cell, "visible": visible, "count": count
    }  # fmt: skip
    return environment.get_template(name)


def percent(value: float | None, digits: int = 1) -> str:
    """0.9831 -> "98.3 %" (with a no-break space); what is not defined is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f}\u00a0%"


def count(number: int) -> str:
    """12345 -> "12,345"."""
    return f"{number:,}"


def cell(text: str) -> str:
    """A name as text of a Markdown table: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def size(count: int) -> str:
    """Bytes for people: 12.3 kB, 4.5 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def visible(text: str) -> str:
    """A file's name with what a browser would hide or turn around spelt out, as Python does."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def data_uri(image: Pixels, tiny: int = TINY, side: int = _THUMBNAIL) -> str:
    """An image uint8 H×W×3 inside a URI.

    Up to `tiny` pixels a side as PNG, larger ones as a JPEG thumbnail of at most `side`.
    """
    from PIL import Image

    picture, stream = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    if max(picture.size) <= tiny:
        picture.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((side, side))
        picture.save(stream, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
