"""`visionloop data suspects`: the labels that cross-validation doubts, for the review sheet."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tasks.data.review import SHEET, SUSPECT, Row, add_suspects, read_rows, read_sheet, write_rows
from tasks.data.tables import CLEANED, read_table
from tasks.evaluation.cross_validate import TARGET
from tasks.evaluation.label_suspects import PAGE, TABLE, Suspect, read_suspects

_LISTED = 10


@dataclass(frozen=True)
class Exported:
    """The suspects taken, and what became of them: rows `added` to the sheet, or that would be.

    `decided` are in the sheet with a decision, `asked` without one; `gone` are no longer in the
    data, left out by cleaning, or under another label by now.
    """

    suspects: list[Suspect]
    added: int
    asked: int
    decided: int
    gone: int
    written: bool

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "suspects": [one.__dict__ for one in self.suspects],
            "added": self.added,
            "asked": self.asked,
            "decided": self.decided,
            "gone": self.gone,
            "written": self.written,
            "sheet": str(SHEET),
            "page": str(TARGET / PAGE),
        }


def export(limit: int | None, write: bool) -> Exported:
    """Find the rows that the sheet lacks for the worst `limit` suspects (None: all); add them.

    Without `write` nothing is changed. Decisions stay as they are, and what is in the sheet is
    not added again. Raises DataError when there are no suspects to read, nothing has been
    cleaned, or the sheet has a mistake: it is then left as it is.
    """
    suspects = read_suspects(TARGET / TABLE)[:limit]
    read_sheet(SHEET)  # a mistake in it must not be lost
    earlier = read_rows(SHEET)
    decided = {row["pixel_hash"] for row in earlier if row["decision"].strip()}
    known = _labels_now()
    here = [one for one in suspects if known.get(one.pixel_hash) == one.label]
    here = [one for one in here if one.pixel_hash not in decided]
    rows, added = add_suspects(earlier, [_row(one) for one in here])
    if write and added:
        write_rows(SHEET, rows)
    n_decided = sum(one.pixel_hash in decided for one in suspects)
    gone = len(suspects) - n_decided - len(here)
    return Exported(suspects, added, len(here) - added, n_decided, gone, write)


def show(found: Exported, console: Console) -> None:
    """The worst suspects, and what was written or would be."""
    if not found.suspects:
        console.print(f"cross-validation doubts no label; {TARGET / PAGE} says of how many")
        return
    table = Table("given", "", "likelier", "", "image", box=None)
    for one in found.suspects[:_LISTED]:
        table.add_row(
            one.label, f"{one.p_label:.1%}", one.likelier, f"{one.p_likelier:.1%}", one.path
        )
    console.print(table)
    rest = len(found.suspects) - _LISTED
    console.print(f"{f'and {rest:,} more; ' if rest > 0 else ''}all with images: {TARGET / PAGE}")
    done = "added" if found.written else "would be added"
    console.print(
        f"{SHEET}: {found.added:,} {done}; {found.asked:,} were asked about before, "
        f"{found.decided:,} are decided, {found.gone:,} are not in the data now or under "
        "another label"
    )
    if not found.written:
        console.print("nothing was written; [bold]--write[/] adds them to the sheet")
    elif found.added:
        console.print(
            "write relabel (new_label is filled in), keep or drop into their column decision; "
            "until then nothing changes"
        )


def _labels_now() -> dict[str, str]:
    """Pixel hash → label of the images that cleaning keeps."""
    table = read_table(CLEANED, "clean")
    kept = table[table["keep"]]
    return dict(zip(kept["pixel_hash"], kept["label"], strict=True))


def _row(suspect: Suspect) -> Row:
    given, likelier = f"{suspect.label} {suspect.p_label:.1%}", f"{suspect.p_likelier:.1%}"
    return {
        "pixel_hash": suspect.pixel_hash,
        "path": suspect.path,
        "label": suspect.label,
        "flags": SUSPECT,
        "reason": "",
        "decision": "",
        "new_label": suspect.likelier,
        "note": f"{given}, {suspect.likelier} {likelier}",
    }
