"""The step `review`: data/review.csv, which a person edits → data/decisions.parquet.

`visionloop data review` writes the flagged images into the sheet, `visionloop data suspects` those
whose label cross-validation doubts. `decision` is keep, drop, relabel (to `new_label`) or empty:
then the policy decides. Decisions are keyed by the hash of the pixels; DVC keeps their versions.
"""

import csv
import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.tables import DECISIONS, write_table
from tasks.errors import DataError
from tasks.files import write_text
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

SHEET = Path("data/review.csv")
COLUMNS = ("pixel_hash", "path", "label", "flags", "reason", "decision", "new_label", "note")
CHOICES = ("keep", "drop", "relabel")
SUSPECT = "label_suspect"  # among the flags: new_label is filled in, whatever is decided

Row = dict[str, str]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decisions:
    """What a person decided: pixel hash → keep or drop, and pixel hash → label."""

    decided: dict[str, str]
    labels: dict[str, str]

    def relabelled(self, table: "pd.DataFrame") -> "pd.Series[str]":
        """The labels of the manifest's rows, as decided."""
        return table["pixel_hash"].map(self.labels).fillna(table["label"])

    def overrule(self, table: "pd.DataFrame") -> None:
        """Put the decisions in the place of the policy's in `decision` and `reason`.

        Of images with the same pixels only the one that is no exact duplicate comes back.
        """
        decided = table["pixel_hash"].map(self.decided)
        kept = (decided == "keep") & ~table["flag_exact_duplicate"]
        dropped = decided == "drop"
        table.loc[kept, "decision"], table.loc[dropped, "decision"] = "keep", "drop"
        table.loc[kept | dropped, "reason"] = "review"
        unknown = len(set(self.decided) - set(table["pixel_hash"].dropna()))
        if unknown:
            log.info("%d decisions of %s are on images that are not here now", unknown, SHEET)


def decisions_of(table: "pd.DataFrame") -> Decisions:
    """The decisions of data/decisions.parquet."""
    relabelled = table[table["label"].notna()]
    return Decisions(
        dict(zip(table["pixel_hash"], table["decision"], strict=True)),
        dict(zip(relabelled["pixel_hash"], relabelled["label"], strict=True)),
    )


def read_sheet(path: Path) -> Decisions:
    """The decisions in a sheet; raises DataError naming the line that is wrong."""
    decided: dict[str, str] = {}
    labels: dict[str, str] = {}
    for number, row in enumerate(read_rows(path), start=2):
        choice = row["decision"].strip().lower()
        if not choice:
            continue
        _check(path, number, row, choice, decided)
        digest = row["pixel_hash"].strip()
        decided[digest] = "drop" if choice == "drop" else "keep"
        if choice == "relabel":
            labels[digest] = row["new_label"].strip()
    return Decisions(decided, labels)


def read_rows(path: Path) -> list[Row]:
    """The rows of a sheet, as text; raises DataError when it is no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; save it as CSV in UTF-8") from None
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # a spreadsheet may have saved it with others
    rows = list(csv.DictReader(io.StringIO(text), delimiter=separator))
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; `visionloop data review` writes it")
    return [{name: row.get(name) or "" for name in COLUMNS} for row in rows]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a sheet, atomically."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def to_review(table: "pd.DataFrame", earlier: Iterable[Row]) -> list[Row]:
    """A row for each image that is flagged, the quarantined first, and each decided `earlier`.

    Decisions are kept as they were made, and label suspects while they are kept under that
    label; an image with the same pixels as another is asked about once.
    """
    earlier = list(earlier)
    decided = {row["pixel_hash"]: row for row in earlier if row["decision"].strip()}
    names = [name for name in table.columns if name.startswith("flag_")]
    flags = table[names].rename(columns=lambda name: name.removeprefix("flag_"))
    asked = table.assign(
        flags=[" ".join(flags.columns[row]) for row in flags.to_numpy()],
        urgency=table["decision"].map({"quarantine": 0, "drop": 1}).fillna(2),
    )
    asked = asked[flags.any(axis=1) & asked["pixel_hash"].notna()]
    asked = asked.sort_values(["urgency", "flags", "path"]).drop_duplicates("pixel_hash")
    rows = [
        {name: str(row[name] or "") for name in COLUMNS[:5]}
        for row in asked[~asked["pixel_hash"].isin(list(decided))].to_dict("records")
    ]
    empty = dict.fromkeys(COLUMNS, "")
    kept = table[table["keep"]]
    labels = dict(zip(kept["pixel_hash"], kept["label"], strict=True))
    waiting = [row for row in _suspects(earlier) if labels.get(row["pixel_hash"]) == row["label"]]
    return [*add_suspects([empty | row for row in rows], waiting)[0], *decided.values()]


def add_suspects(rows: Iterable[Row], suspects: Iterable[Row]) -> tuple[list[Row], int]:
    """The rows of a sheet with those of `suspects` that it lacks after them, and how many.

    A row without a decision that asks about the image for another reason gets the flag, the
    likelier label and the note; one with a decision is left as it is.
    """
    rows = list(rows)
    places = {row["pixel_hash"]: place for place, row in enumerate(rows)}
    added = 0
    for suspect in suspects:
        place = places.setdefault(suspect["pixel_hash"], len(rows))
        if place == len(rows):
            rows.append(suspect)
        elif rows[place]["decision"].strip() or SUSPECT in rows[place]["flags"].split():
            continue
        else:
            row = rows[place]
            note = row["note"] or suspect["note"]
            told = {"flags": f"{row['flags']} {SUSPECT}".strip(), "new_label": suspect["new_label"]}
            rows[place] = row | told | {"note": note}
        added += 1
    return rows, added


def _suspects(rows: Iterable[Row]) -> list[Row]:
    """The label suspects that nobody has decided on, asked about for that alone."""
    return [
        row | {"flags": SUSPECT, "reason": ""}
        for row in rows
        if SUSPECT in row["flags"].split() and not row["decision"].strip()
    ]


def _check(path: Path, number: int, row: Row, choice: str, decided: dict[str, str]) -> None:
    where = f"{path}, line {number}"
    if choice not in CHOICES:
        raise DataError(f"{where}: decision {row['decision']!r} is none of {', '.join(CHOICES)}")
    if choice == "relabel" and not row["new_label"].strip():
        raise DataError(f"{where}: relabel needs a new_label")
    suggested = SUSPECT in row["flags"].split()  # then the label is ours, not the person's
    if choice != "relabel" and row["new_label"].strip() and not suggested:
        raise DataError(f"{where}: new_label is given, but the decision is {choice!r}, not relabel")
    if not row["pixel_hash"].strip():
        raise DataError(f"{where}: pixel_hash is empty; it says which image is meant")
    if row["pixel_hash"].strip() in decided:
        raise DataError(f"{where}: {row['path']!r} was decided on in a line before; remove one")


def main() -> None:
    """The step."""
    import pandas as pd

    read = read_sheet(SHEET)
    log.info("%d decisions, %d of them other labels", len(read.decided), len(read.labels))
    rows = [(digest, read.decided[digest], read.labels.get(digest)) for digest in read.decided]
    table = pd.DataFrame(sorted(rows), columns=["pixel_hash", "decision", "label"], dtype=str)
    write_table(DECISIONS, table)


if __name__ == "__main__":
    run_step(main)
