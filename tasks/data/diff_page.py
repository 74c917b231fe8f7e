"""A Difference as one self-contained page: numbers in full, images sampled."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.data.describe import pixel_hash
from tasks.data.diff import Change, Difference, Seen
from tasks.data.images import Folders, image_file, read_image
from tasks.pages.render import TINY, data_uri, template
from tasks.pixels import Pixels, UnreadableImage

TITLES = {
    "added": "Added",
    "removed": "Removed",
    "relabelled": "Relabelled",
    "moved": "Moved between splits",
    "left_out": "Left out by cleaning now",
    "taken_in": "Taken in again by cleaning",
    "renamed": "Renamed",
}
SHOWN = 24
_CLASSES = 100


@dataclass(frozen=True)
class Example:
    """A change with its picture; `stored` when only the manifest's grey thumbnail was left."""

    change: Change
    source: str
    stored: bool
    tiny: bool
    lines: tuple[str, ...]


def render(difference: Difference, folders: Folders, max_pixels: int) -> str:
    """The page, HTML; of each kind up to SHOWN images, drawn by their pixel hash.

    A picture is the image's file, below the `folders` of the sources, while one of its paths
    still has the same pixels.
    """
    counts = difference.counts
    classes = sorted(difference.classes, key=lambda one: -abs(one.after - one.before))
    page: str = template("diff.html.j2", Path(__file__).parent).render(
        before=difference.before,
        after=difference.after,
        counts=counts,
        titles=TITLES,
        moves=difference.moves(),
        relabellings=difference.relabellings(),
        classes=classes[:_CLASSES],
        more_classes=max(0, len(classes) - _CLASSES),
        most=max((max(one.before, one.after) for one in classes), default=1),
        examples={
            kind: examples(difference, kind, folders, max_pixels) for kind in TITLES if counts[kind]
        },
    )
    return page


def examples(difference: Difference, kind: str, folders: Folders, max_pixels: int) -> list[Example]:
    """Up to SHOWN changes of a kind with their pictures, in the order of their paths."""
    # A pixel hash is as good as a random number, and the same on every call.
    drawn = sorted(difference.of_kind(kind), key=lambda change: change.pixel_hash)[:SHOWN]
    shown = sorted(drawn, key=lambda change: change.path)
    return [_example(change, folders, max_pixels) for change in shown]


def _example(change: Change, folders: Folders, max_pixels: int) -> Example:
    image = next(_still_there(change, folders, max_pixels), None)
    stored = image is None
    if image is None:
        side = math.isqrt(len(change.thumbnail))
        grey = np.frombuffer(change.thumbnail, np.uint8).reshape(side, side)
        image = np.repeat(grey[..., None], 3, axis=2)
    tiny = max(image.shape[:2]) <= TINY
    return Example(change, data_uri(image), stored, tiny, _lines(change))


def _still_there(change: Change, folders: Folders, max_pixels: int) -> Iterator[Pixels]:
    for seen in (change.after, change.before):
        if seen is None or seen.source not in folders:
            continue
        try:
            file = image_file(seen.path, seen.source, seen.box, folders)
            image = read_image(file, max_pixels)
        except UnreadableImage:
            continue
        if pixel_hash(image) == change.pixel_hash:
            yield image


def _lines(change: Change) -> tuple[str, ...]:
    """What a reader wants to know below the picture."""
    before, after = change.before, change.after
    if before is None or after is None:
        seen = after or before
        return (f"{seen.label}, {_place(seen)}",) if seen else ()
    lines = [_arrow(before.label, after.label), _arrow(_place(before), _place(after))]
    if before.path != after.path:
        lines.append(f"was {before.path}")
    return tuple(lines)


def _place(seen: Seen) -> str:
    return seen.split or f"left out ({(seen.reason or 'unknown').replace('_', ' ')})"


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
