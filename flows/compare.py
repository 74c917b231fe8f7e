"""`visionloop compare`: two bundles or versions side by side, in the terminal and as a page."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.bundle import named_bundle
from tasks.evaluation.comparison_page import Compared, rows_of
from tasks.evaluation.side_by_side import ClassChange
from tasks.params import Settings, load_params
from tasks.registry.champion_report import folder_of
from tasks.registry.comparison import compare_bundles, write_comparison

_LISTED = 10


@dataclass(frozen=True)
class Result:
    """The comparison and the page that shows it."""

    compared: Compared
    page: Path

    def as_json(self) -> dict[str, Any]:
        """For `--json`: every figure, and every image of which one of the two is right."""
        found, picture = self.compared.found, self.compared.picture
        spans = ("difference", "nll_difference", "accuracy", "calibration_error", "nll")
        plain = {name: list(getattr(found, name)) for name in spans}
        images = {
            kind: [
                asdict(one) | ({"path": picture(one.row)[1]} if picture else {})
                for one in getattr(found, kind)
            ]
            for kind in ("broken", "fixed")
        }
        return {
            "a": {"title": found.a.title, "bundle": found.a.digest},
            "b": {"title": found.b.title, "bundle": found.b.digest},
            "images": found.images,
            "left_out": found.left_out,
            "p_value": found.p_value,
            "agreement": found.agreement,
            **plain,
            "classes": [asdict(one) for one in found.classes],
            "rows": [asdict(row) for row in rows_of(found)],
            "notes": self.compared.notes,
            **images,
            "page": str(self.page),
        }


def compare(
    names: tuple[str, str], titles: tuple[str, str], page: Path | None, settings: Settings
) -> Result:
    """Compare two named bundles on the frozen test images and write the page, under these titles.

    It is written to `page`, else among the state. Raises BundleError when there is nothing that
    both can be compared on.
    """
    params = load_params()
    a, b = named_bundle(names[0], settings), named_bundle(names[1], settings)
    compared = compare_bundles(a, b, titles, params)
    target = page or folder_of(b, settings) / f"{a.digest[:12]}.html"
    write_comparison(target, compared, params)
    return Result(compared, target.resolve())


def show(result: Result, console: Console) -> None:
    """The verdict, both models' figures, and the classes that changed most."""
    found = result.compared.found
    console.print(Text(found.verdict))
    for note in result.compared.notes:
        console.print(Text(f"· {note}"))
    console.print(Text(f"A: {found.a.title}   B: {found.b.title}"))
    table = Table("", "A", "B", "B less A", box=None)
    for row in rows_of(found):
        table.add_row(row.title, row.a, row.b, row.difference)
    console.print(table)
    console.print(f"the same answer to {found.agreement:.1%}; McNemar's p {found.p_value:.2g}")
    _show_classes(found.classes, console)
    console.print(f"page: {result.page.as_uri()}", soft_wrap=True)


def _show_classes(classes: list[ClassChange], console: Console) -> None:
    changed = sorted((one for one in classes if one.change[0]), key=lambda one: -abs(one.change[0]))
    if not changed:
        console.print("no class is recalled better or worse")
        return
    table = Table("class", "images", "recall A", "B", "B less A, points", "p (Holm)", box=None)
    for one in changed[:_LISTED]:
        value, low, high = (100 * share for share in one.change)
        change = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
        shares = (f"{one.a:.1%}", f"{one.b:.1%}")
        table.add_row(Text(one.name), f"{one.images:,}", *shares, change, f"{one.p_value:.2g}")
    console.print(table)
    if len(changed) > _LISTED:
        console.print(f"and {len(changed) - _LISTED:,} more classes, on the page")
