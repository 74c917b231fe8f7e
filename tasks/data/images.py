"""From a row of the manifest to its pixels: the file below its source's folder, or a part of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.data.sources.found import Box
from tasks.data.sources.locate import local_folder
from tasks.pixels import Pixels, UnreadableImage, cut, read
from tasks.schema import Ingest

if TYPE_CHECKING:
    import pandas as pd

Folders = Mapping[str, Path]


class ImageFile(NamedTuple):
    """An image: its file, and which part of it (None: the whole)."""

    file: Path
    box: Box | None = None

    def __str__(self) -> str:
        return str(self.file) if self.box is None else f"{self.file}, box {self.box}"


def source_folders(ingest: Ingest, home: Path, root: Path = Path()) -> dict[str, Path]:
    """Source name → the folder of its files; what is not here yet is fetched."""
    return {
        name: local_folder(source, ingest, home, root, refresh=False)
        for name, source in ingest.sources.items()
    }


def image_file(path: str, source: str, box: object, folders: Folders) -> ImageFile:
    """The image of a row with these `path`, `source` and `box` (text, or a null)."""
    name = path.removeprefix(f"{source}/")
    if not isinstance(box, str):
        return ImageFile(folders[source] / name)
    left, top, right, bottom = map(int, box.split(","))
    return ImageFile(folders[source] / name.rpartition("#")[0], (left, top, right, bottom))


def image_files(rows: "pd.DataFrame", folders: Folders) -> list[ImageFile]:
    """The images of rows with `path`, `source` and `box`, in their order."""
    columns = zip(rows["path"], rows["source"], rows["box"], strict=True)
    return [image_file(path, source, box, folders) for path, source, box in columns]


def read_image(image: ImageFile, max_pixels: int) -> Pixels:
    """The pixels, uint8 H×W×3; raises UnreadableImage."""
    if not image.file.exists():
        raise UnreadableImage("the file does not exist")
    pixels = read(image.file, max_pixels)
    return pixels if image.box is None else cut(pixels, image.box)
