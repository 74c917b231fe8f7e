"""A comparison of two models as rows, as a page of its own, and as a part of B's report.

Neither page asks the network for anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.evaluation.champion_part import filled
from tasks.evaluation.side_by_side import ChangedImage, ClassChange, Side, SideBySide, Span
from tasks.pages.render import TINY, data_uri, percent, size, template
from tasks.pixels import Pixels
from tasks.schema import Evaluate

_READABLE, _SHOWN = 60, 30  # classes that are all shown; of more, so many of either end
Picture = Callable[[int], tuple[Pixels, str]]
"""Gives the pixels and the path of an image by its row."""


@dataclass(frozen=True)
class Compared:
    """A comparison with where its images came from; `picture` is None without them."""

    found: SideBySide
    picture: Picture | None
    note: str | None = None
    """Why the images are not at hand, and what was compared instead."""

    @property
    def notes(self) -> list[str]:
        """What must be known before trusting the figures."""
        return ([self.note] if self.note else []) + notes_of(self.found)


@dataclass(frozen=True)
class Row:
    """One figure of both models; `difference` is "" where there is none to tell."""

    title: str
    a: str
    b: str
    difference: str = ""


@dataclass(frozen=True)
class Shown:
    """A changed image; `source` is a data URI, both are "" where the image is not at hand."""

    image: ChangedImage
    source: str
    path: str


def rows_of(found: SideBySide) -> list[Row]:
    """The figures of both models, those measured here and those that the bundles carry."""
    a, b = found.a.info.measurements, found.b.info.measurements
    errors = [side.figure("robustness", "mean_corruption_error", "value") for side in _sides(found)]
    nll = "{:+.4f} ({:+.4f} to {:+.4f})".format(*found.nll_difference)
    return [
        _row("accuracy", percent, found.accuracy, _points(found.difference)),
        _row("calibration error", percent, found.calibration_error),
        _row("negative log-likelihood", "{:.4f}".format, found.nll, nll),
        _row("mean corruption error, as built", percent, errors, _change(errors)),
        Row(
            "latency of an image, as built",
            f"{a.latency_ms:.3g} ms on {found.a.info.runtime.title}",
            f"{b.latency_ms:.3g} ms on {found.b.info.runtime.title}",
            f"{b.latency_ms / a.latency_ms:.2f} times",
        ),
        Row(
            "size",
            size(a.size_bytes),
            size(b.size_bytes),
            f"{b.size_bytes / a.size_bytes:.2f} times",
        ),
    ]


def _row(title: str, shown: Callable[[Any], str], values: Sequence[Any], change: str = "") -> Row:
    return Row(title, shown(values[0]), shown(values[1]), change)


def notes_of(found: SideBySide) -> list[str]:
    """What the two models themselves leave to know before trusting the figures."""
    notes = []
    for title, only in zip((found.a.title, found.b.title), found.only, strict=True):
        if only:
            notes.append(
                f"Only {title} knows {', '.join(only[:8])}{' …' if len(only) > 8 else ''}."
            )
    if found.left_out:
        notes.append(f"{found.left_out:,} images of such classes are left out.")
    sizes = {side.info.input.size for side in _sides(found)}
    if len(sizes) > 1:
        notes.append("The inputs differ in size: each model sees the images at its own.")
    for side in _sides(found):
        if side.metrics is None:
            notes.append(f"{side.title} carries no metrics.json: it is from before there was one.")
    images = {side.figure("robustness", "images") for side in _sides(found)} - {None}
    if len(images) > 1:
        notes.append("The two were measured on different numbers of corrupted images.")
    return notes


def shown_classes(found: SideBySide) -> list[ClassChange]:
    """All classes, or of many those that lose and those that gain most."""
    few = len(found.classes) <= _READABLE
    return found.classes if few else found.classes[:_SHOWN] + found.classes[-_SHOWN:]


def render_comparison(compared: Compared, params: Evaluate) -> str:
    """The page of its own, with up to `params.worst_mistakes` images of either kind."""
    return _render("comparison.html.j2", "h2", compared, params)


def report_with(compared: Compared, report: str, params: Evaluate) -> str | None:
    """B's report with the comparison in the champion's part; None where it has no such part."""
    return filled(report, _render("report_champion_filled.html.j2", "h3", compared, params))


def _render(name: str, heading: str, compared: Compared, params: Evaluate) -> str:
    found = compared.found
    broken, fixed = (
        [_shown(one, compared.picture) for one in kind[: params.worst_mistakes]]
        for kind in (found.broken, found.fixed)
    )
    return str(
        template(name, Path(__file__).parent).render(
            heading=heading,
            found=found,
            rows=rows_of(found),
            notes=compared.notes,
            classes=shown_classes(found),
            points=_points,
            broken=broken,
            fixed=fixed,
            tiny=max(side.info.input.size for side in _sides(found)) <= TINY,
            level=f"{100 * params.confidence:g} %",
        )
    )


def _sides(found: SideBySide) -> tuple[Side, Side]:
    return found.a, found.b


def _points(span: Span) -> str:
    value, low, high = (100 * share for share in span)
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def _change(values: list[float | None]) -> str:
    old, new = values
    return "" if old is None or new is None else f"{100 * (new - old):+.1f} points"


def _shown(image: ChangedImage, picture: Picture | None) -> Shown:
    if picture is None:
        return Shown(image, "", "")
    pixels, path = picture(image.row)
    return Shown(image, data_uri(pixels), path)
