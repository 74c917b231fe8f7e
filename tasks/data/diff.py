"""What changed between two versions of the data set: two pairs of tables → a Difference.

An image is its pixels: a file that was moved, renamed or stored in another format is the same
image. Of files with the same pixels one stands for all: the kept one, else the first by path.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("added", "removed", "relabelled", "moved", "left_out", "taken_in", "renamed")
"""Ways in which an image can differ; `moved` is between splits, `left_out` and `taken_in` are
by cleaning, `renamed` is at none of its old paths, with its old label."""

_NEEDED = ("path", "label", "pixel_hash", "keep", "reason", "thumbnail", "source", "box")
_LABELS = " / "  # between the labels of an image whose files contradict each other


@dataclass(frozen=True)
class Seen:
    """An image in one version; `split` is None when cleaning dropped it, for `reason`."""

    path: str
    label: str
    split: str | None
    reason: str | None
    files: int
    source: str
    box: str | None


@dataclass(frozen=True)
class Change:
    """An image that differs; `thumbnail` is the manifest's, small, square and grey."""

    pixel_hash: str
    kinds: tuple[str, ...]
    before: Seen | None
    after: Seen | None
    thumbnail: bytes

    @property
    def path(self) -> str:
        """Where it is, or was when it is gone."""
        seen = self.after or self.before
        return seen.path if seen else ""


@dataclass(frozen=True)
class Version:
    """A version's name and numbers: distinct images, those in a split, files, unreadable files."""

    name: str
    images: int
    kept: int
    files: int
    unreadable: int


@dataclass(frozen=True)
class ClassChange:
    """The images of a class before and after, and how it came about."""

    label: str
    before: int
    after: int
    added: int
    removed: int
    relabelled_to: int
    relabelled_from: int


@dataclass(frozen=True)
class Difference:
    """All that differs between two versions, every image and the numbers."""

    before: Version
    after: Version
    changes: tuple[Change, ...]
    classes: tuple[ClassChange, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Images by kind, in the order of KINDS; one image can be of several."""
        found = Counter(kind for change in self.changes for kind in change.kinds)
        return {kind: found[kind] for kind in KINDS}

    def of_kind(self, kind: str) -> list[Change]:
        """The changes of a kind, by path."""
        return [change for change in self.changes if kind in change.kinds]

    def moves(self) -> list[tuple[str, str, int]]:
        """(from split, to split, images) of those that moved, most first."""
        found = Counter(
            (str(change.before.split), str(change.after.split))
            for change in self.of_kind("moved")
            if change.before and change.after
        )
        return [(*pair, number) for pair, number in found.most_common()]

    def relabellings(self) -> list[tuple[str, str, int]]:
        """(from label, to label, images) of those relabelled, most first."""
        found = Counter(
            (change.before.label, change.after.label)
            for change in self.of_kind("relabelled")
            if change.before and change.after
        )
        return [(*pair, number) for pair, number in found.most_common()]

    def as_json(self) -> dict[str, Any]:
        """Plain values, with every image."""
        return {
            "before": asdict(self.before),
            "after": asdict(self.after),
            "counts": self.counts,
            "classes": [asdict(one) for one in self.classes],
            "moves": [{"from": a, "to": b, "images": n} for a, b, n in self.moves()],
            "images": [_plain(change) for change in self.changes],
        }


def difference(
    before: "tuple[str, pd.DataFrame, pd.DataFrame]",
    after: "tuple[str, pd.DataFrame, pd.DataFrame]",
) -> Difference:
    """Compare two versions, each given as name, cleaned manifest and splits.

    Raises DataError when a table lacks a column.
    """
    one, two = _images(*before), _images(*after)
    both = one.join(two, how="outer", lsuffix="_before", rsuffix="_after")
    kinds = _kinds(both, _at_an_old_path(before[1], after[1]))
    different = kinds.any(axis=1)
    rows = both[different].to_dict("records")
    named = (tuple(kinds.columns[flags]) for flags in kinds[different].to_numpy())
    changes = [
        _change(digest, of_kinds, row)
        for digest, of_kinds, row in zip(both.index[different], named, rows, strict=True)
    ]
    return Difference(
        before=_version(before[0], before[1], one),
        after=_version(after[0], after[1], two),
        changes=tuple(sorted(changes, key=lambda change: change.path)),
        classes=_classes(one["label"], two["label"], changes),
    )


def _images(name: str, cleaned: "pd.DataFrame", splits: "pd.DataFrame") -> "pd.DataFrame":
    """One row an image, by pixel hash: path, label, split, reason, files, thumbnail."""
    lacking = [column for column in _NEEDED if column not in cleaned]
    lacking += [column for column in ("path", "split") if column not in splits]
    if lacking:
        raise DataError(
            f"the data of {name} have no column {', '.join(lacking)}: they were made by another "
            "version of Visionloop and cannot be compared"
        )
    table = cleaned.loc[cleaned["pixel_hash"].notna(), list(_NEEDED)]
    table = table.merge(splits[["path", "split"]], on="path", how="left")
    table = table.sort_values(["keep", "path"], ascending=[False, True])
    images = table.drop_duplicates("pixel_hash").set_index("pixel_hash")
    images["files"] = table["pixel_hash"].value_counts()
    labels = table.drop_duplicates(["pixel_hash", "label"]).sort_values("label")
    several = labels[labels.duplicated("pixel_hash", keep=False)]
    joined = several.groupby("pixel_hash")["label"].agg(_LABELS.join)
    contradicting = joined[~images["keep"].reindex(joined.index).astype(bool)]
    images["label"] = contradicting.reindex(images.index).fillna(images["label"])
    return images.drop(columns="keep")


def _at_an_old_path(before: "pd.DataFrame", after: "pd.DataFrame") -> "set[str]":
    """The images of which some file is where it was."""
    columns = ["pixel_hash", "path"]
    return set(before[columns].merge(after[columns], on=columns)["pixel_hash"])


def _kinds(both: "pd.DataFrame", in_place: set[str]) -> "pd.DataFrame":
    """For each image and kind whether the image differs in that way; bool N×7."""
    import pandas as pd

    was, is_now = both["path_before"].notna(), both["path_after"].notna()
    had, has = both["split_before"].notna(), both["split_after"].notna()
    stayed = was & is_now
    relabelled = stayed & (both["label_before"] != both["label_after"])
    found = {
        "added": ~was,
        "removed": ~is_now,
        "relabelled": relabelled,
        "moved": stayed & had & has & (both["split_before"] != both["split_after"]),
        "left_out": stayed & had & ~has,
        "taken_in": stayed & ~had & has,
        "renamed": stayed & ~relabelled & ~both.index.isin(list(in_place)),
    }
    return pd.DataFrame(found)


def _change(digest: str, kinds: tuple[str, ...], row: Mapping[Any, Any]) -> Change:
    before, after = _seen(row, "before"), _seen(row, "after")
    thumbnail = row["thumbnail_before"] if after is None else row["thumbnail_after"]
    return Change(digest, kinds, before, after, thumbnail)


def _seen(row: Mapping[Any, Any], side: str) -> Seen | None:
    path, label, split, reason, source, box = (
        value if isinstance(value := row[f"{name}_{side}"], str) else None
        for name in ("path", "label", "split", "reason", "source", "box")
    )
    if path is None:
        return None
    return Seen(path, label or "", split, reason, int(row[f"files_{side}"]), source or "", box)


def _version(name: str, cleaned: "pd.DataFrame", images: "pd.DataFrame") -> Version:
    return Version(
        name=name,
        images=len(images),
        kept=int(images["split"].notna().sum()),
        files=len(cleaned),
        unreadable=int(cleaned["pixel_hash"].isna().sum()),
    )


def _classes(
    before: "pd.Series[str]", after: "pd.Series[str]", changes: Iterable[Change]
) -> tuple[ClassChange, ...]:
    was, is_now = Counter(before), Counter(after)
    added, removed = Counter[str](), Counter[str]()
    to, source = Counter[str](), Counter[str]()
    for change in changes:
        if change.before is None and change.after is not None:
            added[change.after.label] += 1
        elif change.after is None and change.before is not None:
            removed[change.before.label] += 1
        elif "relabelled" in change.kinds and change.before and change.after:
            to[change.after.label] += 1
            source[change.before.label] += 1
    return tuple(
        ClassChange(
            label=label,
            before=was[label],
            after=is_now[label],
            added=added[label],
            removed=removed[label],
            relabelled_to=to[label],
            relabelled_from=source[label],
        )
        for label in sorted(was | is_now)
    )


def _plain(change: Change) -> dict[str, Any]:
    return {
        "pixel_hash": change.pixel_hash,
        "kinds": list(change.kinds),
        "before": None if change.before is None else vars(change.before),
        "after": None if change.after is None else vars(change.after),
    }
