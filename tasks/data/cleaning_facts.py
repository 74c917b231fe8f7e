"""What the cleaning report says in numbers and words, counted over the whole cleaned manifest.

The flags are those of the table's `flag_*` columns, whatever they are; the scores behind them
are its `score_*` columns, where there are any.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from tasks.pages.charts import histogram
from tasks.pixels import STATISTICS
from tasks.schema import Clean, CleanPolicy

if TYPE_CHECKING:
    import pandas as pd

DECISIONS = {
    "keep": "kept",
    "flag": "flagged and kept",
    "drop": "dropped",
    "quarantine": "quarantined",
}
NO_CLASS = "(no class)"
CLASSES = 40  # shown; the largest and the smallest when there are more
_LARGE_GROUP = 20  # images; a group of this many is more likely alike than the same
_LOST = 0.5  # share of a class


class Flag(NamedTuple):
    """One row of the table of flags; `thresholds` are the parameters behind it."""

    name: str
    meaning: str
    policy: str
    thresholds: dict[str, float]
    images: int
    dropped: int
    quarantined: int


class ClassCount(NamedTuple):
    """The images of a class, before and after cleaning."""

    label: str
    images: int
    kept: int


def flag_names(table: "pd.DataFrame") -> list[str]:
    """The names of the flags that the table holds."""
    return [name.removeprefix("flag_") for name in table.columns if name.startswith("flag_")]


def decisions(table: "pd.DataFrame") -> "pd.Series[str]":
    """What was decided on each row: a key of DECISIONS."""
    if "decision" in table:
        return table["decision"]
    flagged = table[[f"flag_{name}" for name in flag_names(table)]].any(axis=1)
    return table["keep"].map({True: "keep", False: "drop"}).mask(table["keep"] & flagged, "flag")


def count_decisions(table: "pd.DataFrame") -> dict[str, int]:
    """How many images each decision fell on, in the order of DECISIONS."""
    counts = decisions(table).value_counts()
    return {name: int(counts.get(name, 0)) for name in DECISIONS}


def count_flags(table: "pd.DataFrame", config: Clean) -> list[Flag]:
    """Every flag with its policy, its thresholds and its images."""
    decided = decisions(table)
    return [
        Flag(
            name=name,
            meaning=_meaning(name),
            policy=str(getattr(config.policy, name, "keep")),
            thresholds=thresholds(config, name),
            images=int(table[f"flag_{name}"].sum()),
            dropped=int(((table["reason"] == name) & (decided == "drop")).sum()),
            quarantined=int(((table["reason"] == name) & (decided == "quarantine")).sum()),
        )
        for name in flag_names(table)
    ]


def thresholds(config: Clean, flag: str) -> dict[str, float]:
    """The numbers of the params section `clean` that a flag goes by.

    Those that its policy's description names, and those whose name begins with the flag's.
    """
    named = re.findall(r"clean\.(\w+)", _meaning(flag))
    return {
        key: value
        for key, value in config.model_dump(exclude={"policy"}).items()
        if isinstance(value, int | float)
        and (key in named or key == flag or key.startswith(f"{flag}_"))
    }


def count_classes(table: "pd.DataFrame") -> list[ClassCount]:
    """Every class, the one with the most images first."""
    counts = table.groupby(table["label"].fillna(NO_CLASS))["keep"].agg(["size", "sum"])
    rows = [ClassCount(str(label), int(n), int(kept)) for label, n, kept in counts.itertuples()]
    return sorted(rows, key=lambda row: (-row.images, row.label))


def shown_classes(classes: list[ClassCount]) -> list[ClassCount]:
    """All of them, or the largest and the smallest."""
    half = CLASSES // 2
    return classes if len(classes) <= CLASSES else classes[:half] + classes[-half:]


def distributions(table: "pd.DataFrame") -> list[Markup]:
    """Histograms of sizes and statistics of the readable images, kept and not."""
    readable = table[table["error"].isna()]
    sides = readable[["width", "height"]]
    values = {
        "Shorter side": ("pixels", sides.min(axis=1)),
        "Longer side": ("pixels", sides.max(axis=1)),
        "File size": ("kB", readable["bytes"] / 1e3),
    }
    for name in STATISTICS:
        unit = "width over height" if name == "aspect_ratio" else ""
        values[name.replace("_", " ").capitalize()] = (unit, readable[name])
    kept = readable["keep"].to_numpy(bool)
    return [
        histogram(
            title,
            unit,
            [("s2", "not kept", _numbers(column[~kept])), ("s1", "kept", _numbers(column[kept]))],
        )
        for title, (unit, column) in values.items()
    ]


def score_charts(table: "pd.DataFrame", config: Clean) -> list[Markup]:
    """The histogram of each detector's score, with its threshold where there is one number."""
    charts = []
    for name in flag_names(table):
        if f"score_{name}" not in table:
            continue
        score, flagged = table[f"score_{name}"], table[f"flag_{name}"].to_numpy(bool)
        limits = thresholds(config, name)
        limit = limits.get(name, next(iter(limits.values())) if len(limits) == 1 else None)
        parts = [
            ("s2", "flagged", _numbers(score[flagged])),
            ("s1", "not flagged", _numbers(score[~flagged])),
        ]
        charts.append(histogram(name.replace("_", " ").capitalize(), "score", parts, limit))
    return charts


def next_steps(table: "pd.DataFrame", flags: list[Flag], classes: list[ClassCount]) -> list[str]:
    """What a person should look at, most urgent first; [] when there is nothing."""
    images = {flag.name: flag.images for flag in flags}
    decided = count_decisions(table)
    steps = []
    if count := images.get("unreadable"):
        steps.append(f"{count:,} files cannot be read. Mend or remove them; each says why below.")
    if count := images.get("conflicting_label"):
        steps.append(
            f"{count:,} images show a picture that is filed under another label too. "
            "Decide which label is right; they are side by side below."
        )
    steps += _about_classes(classes)
    largest = _largest_group(table)
    if largest > _LARGE_GROUP:
        steps.append(
            f"The largest group of duplicates holds {largest:,} images. See whether they are one "
            "picture; if they only look alike, lower the near-duplicate thresholds in the params."
        )
    if count := decided["quarantine"]:
        steps.append(
            f"{count:,} images are in quarantine: not used until somebody decides. "
            "`visionloop data review` writes them into a sheet."
        )
    if count := decided["flag"]:
        steps.append(
            f"{count:,} images are flagged and kept. Look at the worst of each kind below; "
            "clean.policy in the params says what becomes of a kind."
        )
    return steps


def _about_classes(classes: list[ClassCount]) -> list[str]:
    lost = [row for row in classes if row.label != NO_CLASS and row.kept < _LOST * row.images]
    names = ", ".join(f"{row.label} ({row.kept:,} of {row.images:,} kept)" for row in lost[:5])
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    return [f"Cleaning took more than half of a class: {names}{more}."] if lost else []


def _largest_group(table: "pd.DataFrame") -> int:
    sizes = table.loc[table["error"].isna(), "group"].value_counts()
    return int(sizes.max()) if len(sizes) else 0


def _meaning(flag: str) -> str:
    field = CleanPolicy.model_fields.get(flag)
    return field.description or "" if field else ""


def _numbers(column: "pd.Series[float]") -> npt.NDArray[np.float64]:
    return np.asarray(column, dtype=np.float64)
