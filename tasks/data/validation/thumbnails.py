"""Small pictures of a table's images for a web page, as data: addresses."""

import logging
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from tasks.data.images import Folders, image_file, read_image, source_folders
from tasks.errors import DataError
from tasks.pages.render import data_uri
from tasks.params import load_settings
from tasks.pixels import UnreadableImage
from tasks.schema import Ingest

SIDE = 96

log = logging.getLogger(__name__)


class Pictures(NamedTuple):
    """Where the images of a manifest are."""

    folders: Folders
    max_pixels: int

    @classmethod
    def of(cls, ingest: Ingest) -> "Pictures":
        """Those of the sources; of none when they cannot be had: pictures are no necessity."""
        try:
            folders = source_folders(ingest, load_settings().home)
        except DataError as error:
            log.warning("no pictures: %s", error)
            folders = {}
        return cls(folders, ingest.max_pixels)


def figure(row: Mapping[str, Any], pictures: Pictures, lines: tuple[str, ...]) -> str:
    """An HTML figure of a manifest row with lines of text below.

    An image that could not be read, or cannot any more, is a box with the reason.
    """
    picture = _box(row["error"]) if isinstance(row.get("error"), str) else _picture(row, pictures)
    text = "<br>".join(escape(line) for line in lines)
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def _picture(row: Mapping[str, Any], pictures: Pictures) -> str:
    if row["source"] not in pictures.folders:
        return _box(f"the source {row['source']} is not here")
    image = image_file(row["path"], row["source"], row["box"], pictures.folders)
    try:
        return f'<img src="{data_uri(read_image(image, pictures.max_pixels), SIDE, SIDE)}" alt="">'
    except UnreadableImage as error:
        return _box(str(error))


def _box(reason: str) -> str:
    return f'<span class="no-picture">cannot be shown: {escape(reason)}</span>'
