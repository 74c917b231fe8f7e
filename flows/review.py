"""`visionloop data review`: the flagged images as a sheet on which a person decides."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tasks.data.review import SHEET, read_rows, read_sheet, to_review, write_rows
from tasks.data.tables import CLEANED, read_table


@dataclass(frozen=True)
class Asked:
    """What the sheet holds: images to decide on, of these quarantined, and decided ones."""

    sheet: Path
    open: int
    quarantined: int
    decided: int

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "sheet": str(self.sheet),
            "open": self.open,
            "quarantined": self.quarantined,
            "decided": self.decided,
        }


def write_sheet() -> Asked:
    """Write data/review.csv from the last cleaning; decisions already made stay in it.

    Raises DataError when nothing has been cleaned yet, or the sheet has a mistake: it is then
    left as it is.
    """
    table = read_table(CLEANED, "clean")
    read_sheet(SHEET)  # a mistake in it must not be lost
    rows = to_review(table, read_rows(SHEET))
    write_rows(SHEET, rows)
    open_rows = [row for row in rows if not row["decision"]]
    waiting = set(table.loc[table["decision"] == "quarantine", "pixel_hash"])
    quarantined = sum(row["pixel_hash"] in waiting for row in open_rows)
    return Asked(SHEET, len(open_rows), quarantined, len(rows) - len(open_rows))


def show(asked: Asked, console: Console) -> None:
    """Say what to do with the sheet."""
    console.print(
        f"{asked.sheet}: {asked.open:,} flagged images to look at, {asked.quarantined:,} of them "
        f"in quarantine; {asked.decided:,} decided"
    )
    console.print(
        "write keep, drop, or relabel (with new_label) into its column decision; an empty one "
        "leaves it to the policy. The next [bold]visionloop run[/] applies it; commit the file."
    )
