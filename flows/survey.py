"""Looks at sources of images before anything is run on them: what `init` decides from.

Every file is counted; the headers of an even sample are read, and of some the pixels.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.data.describe import entropy, grey_of
from tasks.data.images import ImageFile, read_image
from tasks.data.sources.folders import LAYOUT
from tasks.data.sources.found import Found
from tasks.data.sources.locate import find, local_folder
from tasks.errors import DataError
from tasks.pixels import STATISTICS, UnreadableImage, statistics
from tasks.schema import Ingest

FEWEST = 10  # images a class needs: below it, a split holds one image or none
_HEADERS = 600
_PIXELS_READ = 100_000_000  # of the images that are decoded, in all: a second or two
_MAX_PIXELS = 50_000_000
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
_DECODER_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """What the sources hold; `widths`, `heights` and `statistics` are of the sample."""

    ingest: Ingest
    counts: dict[str, int]
    outside: int
    sampled: int
    broken: list[str]
    formats: dict[str, int]
    modes: dict[str, int]
    widths: Floats
    heights: Floats
    measured: dict[str, Floats]

    @property
    def images(self) -> int:
        """Images with a label."""
        return sum(self.counts.values())

    @property
    def long_side(self) -> float:
        """Median of the longer side, in pixels."""
        return float(np.median(np.maximum(self.widths, self.heights)))

    @property
    def aspect_ratios(self) -> tuple[float, float]:
        """5th and 95th percentile of width over height."""
        low, high = np.percentile(self.widths / self.heights, [5, 95])
        return float(low), float(high)

    @property
    def shapes_vary(self) -> bool:
        """Whether stretching all to one square would distort some more than others."""
        low, high = self.aspect_ratios
        return high / low > 1.25

    def percentile(self, statistic: str, percent: float) -> float:
        """A percentile of entropy or one of tasks.pixels.STATISTICS over the decoded sample."""
        return float(np.percentile(self.measured[statistic], percent))


def survey(ingest: Ingest, home: Path) -> Survey:
    """Look at the sources; raises DataError naming what is wrong with them and the way out."""
    found: list[Found] = []
    for source in ingest.sources.values():
        found += find(source, local_folder(source, ingest, home))
    where = ingest.origin
    inside = [file for file in found if file.label is not None]
    counts = dict(sorted(Counter(str(file.label) for file in inside).items()))
    _check_classes(where, counts)
    headers, broken = _read_headers(_evenly(inside, _HEADERS))
    if not headers:
        raise DataError(f"no file of {where} could be read as an image; e.g. {broken[0]}")
    sizes = np.array([size for _, size, _, _ in headers], np.float64)
    return Survey(
        ingest=ingest,
        counts=counts,
        outside=len(found) - len(inside),
        sampled=len(headers) + len(broken),
        broken=broken,
        formats=dict(Counter(kind for _, _, kind, _ in headers).most_common()),
        modes=dict(Counter(mode for _, _, _, mode in headers).most_common()),
        widths=sizes[:, 0],
        heights=sizes[:, 1],
        measured=_measure(where, [file for file, _, _, _ in headers], sizes),
    )


def _check_classes(folder: str, counts: dict[str, int]) -> None:
    if len(counts) < 2:
        only = next(iter(counts))
        raise DataError(
            f"{folder} has one class only ({only!r}); a classifier needs two or more. {LAYOUT}. "
            "If the class folders lie deeper, give the folder right above them"
        )
    few = {label: count for label, count in counts.items() if count < FEWEST}
    if few:
        named = ", ".join(f"{label!r} has {count}" for label, count in few.items())
        raise DataError(
            f"{folder}: too few images: class {named}; each needs at least {FEWEST}. "
            "Add images, or move the folder elsewhere to leave the class out"
        )


def _evenly(files: list[Found], count: int) -> list[Found]:
    if len(files) <= count:
        return files
    return [files[index] for index in np.linspace(0, len(files) - 1, count).astype(int)]


_Header = tuple[Found, tuple[int, int], str, str]


def _read_headers(files: list[Found]) -> tuple[list[_Header], list[str]]:
    """(file, upright size, format, mode) of what is an image, and a line for what is not."""
    headers: list[_Header] = []
    broken: list[str] = []
    for file in files:
        try:
            with Image.open(file.file) as image:
                width, height = image.size
                if file.box is not None:
                    width, height = file.box[2] - file.box[0], file.box[3] - file.box[1]
                elif image.getexif().get(_ORIENTATION) in _SIDEWAYS:
                    width, height = height, width
                headers.append((file, (width, height), image.format or "?", image.mode))
        except _DECODER_ERRORS as error:
            broken.append(f"{file.path}: {error}")
    return headers, broken


def _measure(folder: str, files: list[Found], sizes: Floats) -> dict[str, Floats]:
    """The statistics of a part of the sample: the larger its images, the fewer are decoded."""
    count = int(np.clip(_PIXELS_READ / np.median(sizes.prod(axis=1)), 16, 200))
    rows = []
    for file in _evenly(files, count):
        try:
            image = read_image(ImageFile(Path(file.file), file.box), _MAX_PIXELS)
            rows.append([*statistics(image), entropy(grey_of(Image.fromarray(image)))])
        except UnreadableImage:
            continue
    if not rows:
        raise DataError(f"no image of {folder} could be decoded; are they cut off?")
    table = np.array(rows, np.float64)
    return {name: table[:, column] for column, name in enumerate((*STATISTICS, "entropy"))}
