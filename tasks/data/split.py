"""The step `split`: data/cleaned.parquet → data/splits.parquet, the kept rows with a split.

An image draws a number in [0, 1) from its own pixels and the seed. A group of duplicates
takes the strictest split any of its members draws: test before validation before train.
A group can only grow, so its split can only become stricter: adding images never moves an
old image out of the test split.
"""

import hashlib
import logging
from typing import TYPE_CHECKING

from tasks.data.shards import SPLITS as NAMES
from tasks.data.tables import CLEANED, SPLITS, read_table, write_table
from tasks.errors import DataError
from tasks.params import load_params
from tasks.schema import Split
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "source", "label", "box", "pixel_hash", "group", "split")
_SEEDS_TRIED = 50

log = logging.getLogger(__name__)


def draw(pixel_hash: str, seed: int) -> float:
    """A number in [0, 1) that depends on the pixels and the seed alone."""
    digest = hashlib.blake2b(f"{seed}:{pixel_hash}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def assign(cleaned: "pd.DataFrame", config: Split) -> "pd.DataFrame":
    """The kept rows of the cleaned manifest with COLUMNS, sorted by path.

    Dropped members count in the draw of their group: whether a duplicate is kept changes
    nothing for the others. Raises DataError when a class has no image in a split.
    """
    splits = _assign(cleaned, config)
    _check_classes(cleaned, splits, config)
    return splits


def counts(splits: "pd.DataFrame") -> "pd.DataFrame":
    """Images per class (rows, sorted) and split (columns, in the order of NAMES)."""
    import pandas as pd

    table = pd.crosstab(splits["label"], splits["split"])
    return table.reindex(columns=list(NAMES), fill_value=0).sort_index()


def _assign(cleaned: "pd.DataFrame", config: Split) -> "pd.DataFrame":
    readable = cleaned.dropna(subset="pixel_hash")
    own = readable["pixel_hash"].map(lambda value: draw(value, config.seed))
    # 0 test, 1 validation, 2 train: the strictest is the smallest
    rank = (own >= config.test).astype(int)
    rank += own >= config.test + config.validation
    strictest = rank.groupby(readable["group"]).transform("min")
    names = strictest.map({0: "test", 1: "validation", 2: "train"})
    kept = readable.assign(split=names)[readable["keep"]]
    return kept[list(COLUMNS)].sort_values("path", ignore_index=True)


def _check_classes(cleaned: "pd.DataFrame", splits: "pd.DataFrame", config: Split) -> None:
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
            "; ".join(lacking) + f". Add images of it, raise split.test or split.validation, "
            f"or change split.seed (a new seed draws another test split){_suggest(cleaned, config)}"
        )


def _suggest(cleaned: "pd.DataFrame", config: Split) -> str:
    for seed in range(_SEEDS_TRIED):
        other = _assign(cleaned, config.model_copy(update={"seed": seed}))
        if (counts(other) > 0).all(axis=None):
            return f"; split.seed: {seed} would do"
    return f"; none of the seeds 0 to {_SEEDS_TRIED - 1} would do"


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
    splits = assign(read_table(CLEANED, "clean"), config)
    _log_table(splits, config)
    write_table(SPLITS, splits)


if __name__ == "__main__":
    run_step(main)
