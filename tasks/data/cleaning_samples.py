"""The images that the cleaning report shows: the worst of each kind, and duplicates side by side.

Their number is fixed, so that a page of a million images is no larger than one of a thousand.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.data.cleaning_facts import DECISIONS, NO_CLASS, decisions, flag_names
from tasks.data.images import Folders, ImageFile, image_files, read_image
from tasks.data.parallel import chunks, in_order, workers_for
from tasks.pages.render import data_uri
from tasks.pixels import UnreadableImage

if TYPE_CHECKING:
    import pandas as pd

WORST = 12  # images of each kind
GROUPS, MEMBERS = 8, 6  # groups of duplicates of each kind, and images of each group
# Kinds that are seen side by side; a group is shown under the first that it holds.
KINDS = ("conflicting_label", "near_duplicate", "exact_duplicate")
_TINY, _SIDE = 48, 128  # pixels; see data_uri: 300 images stay within some megabytes
_CHUNK = 8

Indices = list[int]


class Picture(NamedTuple):
    """An image of the page; `source` is its data URI, or empty with the `problem` why."""

    path: str
    label: str
    size: str
    decision: str
    flags: str
    score: str
    source: str
    problem: str


class Group(NamedTuple):
    """Duplicates of each other, the kept one first; `images` counts those not shown too."""

    images: int
    labels: list[str]
    pictures: list[Picture]


class Shown(NamedTuple):
    """What is shown of one kind: the worst images, or groups of duplicates."""

    kind: str
    images: int
    groups_in_all: int
    groups_elsewhere: int  # of them, shown under a kind before this one
    pictures: list[Picture]
    groups: list[Group]


def samples(
    table: "pd.DataFrame", folders: Folders, max_pixels: int, workers: int | None = None
) -> list[Shown]:
    """What the page shows of every flag that is set anywhere, in the table's order of flags.

    `table` is the cleaned manifest with the index 0 … n-1. Only the images shown are decoded.
    """
    flags = [name for name in flag_names(table) if table[f"flag_{name}"].any()]
    worst = {name: worst_rows(table, name) for name in flags if name not in KINDS}
    groups, in_all = duplicate_groups(table)
    wanted = {index for rows in worst.values() for index in rows}
    for found in groups.values():
        wanted |= {index for rows in found[:GROUPS] for index in rows[:MEMBERS]}
    picture = _Pictures(table, sorted(wanted), folders, max_pixels, workers)
    return [
        Shown(
            kind=name,
            images=int(table[f"flag_{name}"].sum()),
            groups_in_all=in_all.get(name, 0),
            groups_elsewhere=in_all.get(name, 0) - len(groups.get(name, [])),
            pictures=[picture(index, name) for index in worst.get(name, [])],
            groups=[_group(table, rows, name, picture) for rows in groups.get(name, [])[:GROUPS]],
        )
        for name in flags
    ]


def worst_rows(table: "pd.DataFrame", name: str) -> Indices:
    """The flagged rows with the most extreme score, else the first by path; at most WORST."""
    flagged = table[table[f"flag_{name}"]].sort_values("path", kind="stable")
    if f"score_{name}" in table:
        score = flagged[f"score_{name}"]
        others = table.loc[~table[f"flag_{name}"], f"score_{name}"]
        lowest_first = not score.median() > others.median()
        order = score.sort_values(ascending=lowest_first, kind="stable", na_position="last")
        flagged = flagged.loc[order.index]
    return [int(index) for index in flagged.index[:WORST]]


def duplicate_groups(table: "pd.DataFrame") -> tuple[dict[str, list[Indices]], dict[str, int]]:
    """Per kind the groups to show, the largest first, and how many hold that kind in all.

    A group is shown under the first kind that it holds; its rows: kept ones, then by path.
    """
    found: dict[str, list[Indices]] = {}
    in_all: dict[str, int] = {}
    readable = table[table["error"].isna()]
    taken: set[str] = set()
    for kind in (kind for kind in KINDS if f"flag_{kind}" in table):
        names = set(readable.loc[readable[f"flag_{kind}"], "group"])
        in_all[kind] = len(names)
        rows = readable[readable["group"].isin(names - taken)]
        taken |= names
        rows = rows.assign(left_out=~rows["keep"]).sort_values(["left_out", "path"])
        members = [[int(i) for i in part.index] for _, part in rows.groupby("group", sort=True)]
        found[kind] = sorted(members, key=lambda group: -len(group))
    return found, in_all


class _Pictures:
    """Makes the Pictures of rows whose thumbnails it has read before, each once."""

    def __init__(
        self,
        table: "pd.DataFrame",
        rows: Indices,
        folders: Folders,
        max_pixels: int,
        workers: int | None,
    ) -> None:
        self._rows = table.loc[rows].assign(decision=decisions(table).loc[rows])
        readable = self._rows[self._rows["error"].isna()]
        read_now = _thumbnails(image_files(readable, folders), max_pixels, workers)
        self._read = dict(zip(readable.index, read_now, strict=True))

    def __call__(self, index: int, kind: str) -> Picture:
        row = self._rows.loc[index]
        source, problem = self._read.get(index, ("", str(row["error"])))
        flags = [name for name in flag_names(self._rows) if row[f"flag_{name}"]]
        score = row.get(f"score_{kind}", np.nan)
        size = "" if np.isnan(row["width"]) else f"{row['width']:.0f}×{row['height']:.0f}"
        return Picture(
            path=str(row["path"]),
            label=label_of(row["label"]),
            size=size,
            decision=DECISIONS[str(row["decision"])],
            flags=", ".join(name.replace("_", " ") for name in flags),
            score="" if score is None or np.isnan(score) else f"{score:.3g}",
            source=source,
            problem=problem,
        )


def label_of(label: object) -> str:
    """A row's class as the page names it."""
    return label if isinstance(label, str) else NO_CLASS


def thumbnails(images: Sequence[ImageFile], max_pixels: int) -> list[tuple[str, str]]:
    """Each image's data URI and "", or "" and why it cannot be shown: the work of a process."""
    found = []
    for image in images:
        try:
            if not image.file.is_file():  # nor a pipe, which would wait for ever
                raise UnreadableImage("the file is gone")
            found.append((data_uri(read_image(image, max_pixels), _TINY, _SIDE), ""))
        except UnreadableImage as error:
            found.append(("", str(error)))
        except Exception as error:  # a hostile file can raise anything inside a decoder
            found.append(("", f"cannot be read: {error}"))
    return found


def _thumbnails(
    images: list[ImageFile], max_pixels: int, workers: int | None
) -> Iterable[tuple[str, str]]:
    if workers is None:
        workers = workers_for(str(image.file) for image in images)
    work = partial(thumbnails, max_pixels=max_pixels)
    return [one for part in in_order(work, chunks(images, _CHUNK), workers) for one in part]


def _group(table: "pd.DataFrame", rows: Indices, kind: str, picture: _Pictures) -> Group:
    labels = sorted({label_of(label) for label in table.loc[rows, "label"]})
    return Group(len(rows), labels, [picture(index, kind) for index in rows[:MEMBERS]])
