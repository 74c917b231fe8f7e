"""One image as a source lists it, before its file is read."""

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

Box = tuple[int, int, int, int]

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Found(NamedTuple):
    """An image: its path in the source, its class (None: it has none) and its file.

    `box` (left, top, right, bottom, in pixels of the upright image) makes it a part of the
    file; `problem` is why it cannot be used, whatever the file holds.
    """

    path: str
    label: str | None
    file: str
    problem: str | None = None
    box: Box | None = None
    group: str | None = None
    split: str | None = None
    weight: float | None = None
    metadata: str | None = None


def as_metadata(columns: Mapping[str, object]) -> str | None:
    """Free columns as canonical JSON; None when there are none."""
    kept = {name: value for name, value in columns.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, default=str) if kept else None


def below(folder: str, name: str) -> str | None:
    """The file `name` of `folder`, or None when the name leads out of it."""
    file = os.path.normpath(os.path.join(folder, name))
    return file if file.startswith(os.path.join(folder, "")) else None
