"""A Difference as one self-contained page: numbers in full, images sampled."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.data.describe import THUMBNAIL_SIDE, pixel_hash
from tasks.data.diff import Change, Difference, Seen
from tasks.data.thumbnails import TINY, data_uri
from tasks.pixels import Pixels, UnreadableImage, read
from tasks.schema import Ingest

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


def render(difference: Difference, ingest: Ingest) -> str:
    """The page, HTML; of each kind up to SHOWN images, drawn by their pixel hash.

    A picture is the image's file while one of its paths still has the same pixels.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = "{:,}".format
    counts = difference.counts
    classes = sorted(difference.classes, key=lambda one: -abs(one.after - one.before))
    return environment.get_template("diff.html.j2").render(
        before=difference.before,
        after=difference.after,
        counts=counts,
        titles=TITLES,
        moves=difference.moves(),
        relabellings=difference.relabellings(),
        classes=classes[:_CLASSES],
        more_classes=max(0, len(classes) - _CLASSES),
        most=max((max(one.before, one.after) for one in classes), default=1),
        examples={kind: examples(difference, kind, ingest) for kind in TITLES if counts[kind]},
    )


def examples(difference: Difference, kind: str, ingest: Ingest) -> list[Example]:
    """Up to SHOWN changes of a kind with their pictures, in the order of their paths."""
    # A pixel hash is as good as a random number, and the same on every call.
    drawn = sorted(difference.of_kind(kind), key=lambda change: change.pixel_hash)[:SHOWN]
    return [_example(change, ingest) for change in sorted(drawn, key=lambda one: one.path)]


def image_file(path: str, ingest: Ingest) -> Path:
    """Where the manifest's `path` is on the disk."""
    return Path(ingest.path) / path


def _example(change: Change, ingest: Ingest) -> Example:
    image = next(_still_there(change, ingest), None)
    stored = image is None
    if image is None:
        grey = np.frombuffer(change.thumbnail, np.uint8).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        image = np.repeat(grey[..., None], 3, axis=2)
    tiny = max(image.shape[:2]) <= TINY
    return Example(change, data_uri(image), stored, tiny, _lines(change))


def _still_there(change: Change, ingest: Ingest) -> Iterator[Pixels]:
    for seen in (change.after, change.before):
        if seen is None:
            continue
        try:
            image = read(image_file(seen.path, ingest), ingest.max_pixels)
        except (UnreadableImage, OSError):
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
