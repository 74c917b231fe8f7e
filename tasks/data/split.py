"""The step `split`: data/cleaned.parquet and data/duplicates.parquet → data/splits.parquet.

Duplicates, and images of one given group, are in one split; a split that the source gives is
respected. The step remembers: an image that was in a split stays there (see
tasks/data/assignment.py), and a new one goes where its duplicates are.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.data.assignment import LEFT_OUT, NAMES, Images, assigned, draw, given_ranks
from tasks.data.duplicates import components
from tasks.data.tables import CLEANED, DUPLICATES, SPLITS, read_table, write_table
from tasks.errors import DataError
from tasks.params import load_params
from tasks.schema import Split
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "source", "label", "box", "pixel_hash", "given_group", "weight")
_LEFT_OUT = "its duplicates, or its group, are in several splits"

log = logging.getLogger(__name__)


def assign(
    cleaned: "pd.DataFrame",
    pairs: "pd.DataFrame",
    config: Split,
    previous: "pd.DataFrame | None" = None,
) -> "pd.DataFrame":
    """The kept rows of the cleaned manifest with COLUMNS, sorted by path, and what they got.

    `split` is null for an image that was left out, `reason` says why; `group` is the smallest
    pixel hash among the duplicates and the given group; `fold` (nullable) counts from 0 in
    cross-validation, without the test split. Dropped images count in the draw of their
    group: whether a duplicate is kept changes nothing for the others. Raises DataError when
    a class has no image in a split, or the source gives one group two splits.
    """
    readable = cleaned.dropna(subset="pixel_hash").sort_values("path", ignore_index=True)
    images = Images.of(readable, pairs)
    split, conflicts = assigned(images, readable, config, previous)
    node = images.node
    kept = readable["keep"].to_numpy(bool)
    table = readable[list(COLUMNS)].assign(split=split[node])
    # the same pixels given to two splits: those of the less strict one are left out
    looser = given_ranks(readable) > images.given[node]
    table.loc[looser & readable["given_split"].notna(), "split"] = LEFT_OUT
    table["reason"] = table["split"].map({LEFT_OUT: _LEFT_OUT})
    table["split"] = table["split"].mask(table["split"] == LEFT_OUT)
    table = table[kept].reset_index(drop=True)
    table["group"] = _groups(table, images, node[kept])
    table["fold"] = _folds(table, config)
    table["drawn_by"] = _drawn_by(config)
    if conflicts:
        log.warning("%d images are left out: %s; e.g. %r", len(conflicts), _LEFT_OUT, conflicts[:3])
    _check_classes(table)
    return table


def counts(splits: "pd.DataFrame") -> "pd.DataFrame":
    """Images per class (rows, sorted) and split (columns, in the order of NAMES)."""
    import pandas as pd

    table = pd.crosstab(splits["label"], splits["split"])
    return table.reindex(columns=list(NAMES), fill_value=0).sort_index()


def read_previous(path: Path, config: Split) -> "pd.DataFrame | None":
    """The splits as they were; None when there are none, or they were drawn otherwise."""
    if not path.exists():
        return None
    previous = read_table(path, "split")
    if set(previous.get("drawn_by", ["?"])) != {_drawn_by(config)}:
        log.warning("split.seed or the shares have changed: every image draws anew")
        return None
    return previous


def _groups(table: "pd.DataFrame", images: Images, node: "np.ndarray") -> "pd.Series[str]":
    """The smallest pixel hash among those that hang together in one split."""
    inside = np.zeros(len(images.hashes), bool)
    inside[node[table["split"].notna().to_numpy()]] = True
    edges = images.edges[inside[images.edges].all(axis=1)]
    component = components(len(images.hashes), edges)
    smallest = np.full(component.max(initial=0) + 1, len(images.hashes))
    np.minimum.at(smallest, component, np.arange(len(images.hashes)))  # hashes are sorted
    return table["pixel_hash"].mask(
        table["split"].notna(), images.hashes[smallest[component[node]]]
    )


def _folds(table: "pd.DataFrame", config: Split) -> "pd.Series[int]":
    import pandas as pd

    if config.folds is None:
        return pd.Series(pd.NA, index=table.index, dtype="Int64")
    drawn = {group: draw(group, config.seed, "fold") for group in table["group"].unique()}
    folds = (table["group"].map(drawn) * config.folds).astype(int).astype("Int64")
    return folds.where(table["split"].isin(["train", "validation"]))


def _drawn_by(config: Split) -> str:
    return f"seed {config.seed}, validation {config.validation}, test {config.test}"


def _check_classes(splits: "pd.DataFrame") -> None:
    table = counts(splits)
    if table.empty:
        raise DataError("no image is kept: see clean.policy and `reason` in data/cleaned.parquet")
    lacking = [
        f"class {label!r} has no image in {name} ({_row(row)})"
        for label, row in table.iterrows()
        for name in NAMES
        if row[name] == 0
    ]
    if lacking:
        raise DataError(
            "; ".join(lacking) + ". It needs three images or more that are no duplicates of each "
            "other: add some, or leave it out with `labels: {CLASS: null}` in its source"
        )


def _row(row: "pd.Series[int]") -> str:
    return ", ".join(f"{name} {row[name]}" for name in NAMES)


def _log_table(splits: "pd.DataFrame", config: Split) -> None:
    shares = {
        "train": 1 - config.validation - config.test,
        "validation": config.validation,
        "test": config.test,
    }
    table = counts(splits)
    table.loc["all"] = table.sum()
    log.info("%-20s " + " ".join(["%22s"] * 3), "class", *(f"{n} (expected)" for n in NAMES))
    for label, row in table.iterrows():
        cells = [f"{row[name]} ({row.sum() * shares[name]:.1f})" for name in NAMES]
        log.info("%-20s " + " ".join(["%22s"] * 3), label, *cells)


def main() -> None:
    """The step."""
    config = load_params().split
    cleaned, pairs = read_table(CLEANED, "clean"), read_table(DUPLICATES, "clean")
    splits = assign(cleaned, pairs, config, read_previous(SPLITS, config))
    _log_table(splits, config)
    write_table(SPLITS, splits)


if __name__ == "__main__":
    run_step(main)
