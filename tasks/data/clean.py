"""The step `clean`: data/manifest.parquet → data/cleaned.parquet and data/metrics/clean.json.

Every row stays, with its flags, its group of near-duplicates, whether it is kept, and the
flag that dropped it. What a flag means for a row is the policy in the params.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.data.duplicates import NearDuplicates, components, near_duplicates
from tasks.data.phash import LENGTH
from tasks.data.tables import CLEANED, MANIFEST, read_table, write_table
from tasks.files import write_json
from tasks.params import load_params
from tasks.schema import Clean, CleanPolicy
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

METRICS = Path("data/metrics/clean.json")
FLAGS = tuple(CleanPolicy.model_fields)
_DUPLICATES = ("exact_duplicate", "near_duplicate")

log = logging.getLogger(__name__)


def clean(manifest: "pd.DataFrame", config: Clean) -> "pd.DataFrame":
    """The manifest with flag_<name> for each of FLAGS, `group`, `keep` and `reason`.

    `score_near_duplicate` is the similarity to the most similar image that was compared.
    Of duplicates, exact or near, the first by path is not flagged; one that is dropped for
    another reason is passed over for a sound one. `group` is the smallest pixel hash among
    all that are near-duplicates of each other, directly or through others.
    """
    table = manifest.sort_values("path", ignore_index=True)
    readable = table["error"].isna()
    table["flag_unreadable"] = ~readable
    table["flag_too_small"] = table[["width", "height"]].min(axis=1) < config.min_side
    table["flag_dark"] = table["brightness"] < config.dark
    table["flag_bright"] = table["brightness"] > config.bright
    table["flag_blurry"] = table["sharpness"] < config.blurry
    table["flag_conflicting_label"] = _conflicting(table)
    table["group"], table["score_near_duplicate"] = _duplicates(table, config)
    _flag_duplicates(table, config.policy)
    _decide(table, config.policy)
    flags = [f"flag_{name}" for name in FLAGS]
    return table[[*manifest.columns, *flags, "score_near_duplicate", "group", "keep", "reason"]]


def summary(table: "pd.DataFrame") -> dict[str, object]:
    """Counts for metrics/clean.json: images, kept, dropped, flagged, and by flag and class."""
    flags = table[[f"flag_{name}" for name in FLAGS]]
    sizes = table.loc[~table["flag_unreadable"], "group"].value_counts()
    return {
        "images": len(table),
        "kept": int(table["keep"].sum()),
        "dropped": int((~table["keep"]).sum()),
        "flagged": int(flags.any(axis=1).sum()),
        "flags": {name: int(table[f"flag_{name}"].sum()) for name in FLAGS},
        "dropped_for": {name: int((table["reason"] == name).sum()) for name in FLAGS},
        "kept_per_class": {
            str(label): int(count) for label, count in table.groupby("label")["keep"].sum().items()
        },
        "largest_group": int(sizes.max()) if len(sizes) else 0,
    }


def _conflicting(table: "pd.DataFrame") -> "pd.Series[bool]":
    labels = table.groupby("pixel_hash")["label"].nunique()
    return table["pixel_hash"].map(labels).fillna(0) > 1


def _duplicates(table: "pd.DataFrame", config: Clean) -> "tuple[pd.Series[str], pd.Series[float]]":
    """Each row's group, and how similar the most similar other picture is (NaN if none is)."""
    # in the order of contents: a pair's verdict shall not depend on paths or other images
    distinct = table.dropna(subset="pixel_hash").drop_duplicates("pixel_hash")
    distinct = distinct.sort_values("pixel_hash", ignore_index=True)
    found = _search(distinct, config)
    component = components(len(distinct), found.pairs)
    # the first in order, not the minimum: pandas finds that of strings group by group
    smallest = distinct.groupby(component)["pixel_hash"].transform("first")
    groups = dict(zip(distinct["pixel_hash"], smallest, strict=True))
    scores = dict(zip(distinct["pixel_hash"], found.scores, strict=True))
    alone = table["file_hash"].fillna(table["path"])
    return (
        table["pixel_hash"].map(groups).fillna(alone),
        table["pixel_hash"].map(scores).astype(np.float32),
    )


def _search(distinct: "pd.DataFrame", config: Clean) -> NearDuplicates:
    hashes = np.frombuffer(bytes.fromhex("".join(distinct["phash"])), np.int8).reshape(-1, LENGTH)
    return near_duplicates(
        hashes,
        distinct["thumbnail"].tolist(),
        config.near_duplicate_similarity,
        config.near_duplicate_flip,
    )


def _flag_duplicates(table: "pd.DataFrame", policy: CleanPolicy) -> None:
    """Flag all but the first of each set of duplicates, sound images before unsound ones."""
    readable = table[~table["flag_unreadable"]]
    unsound = _dropping(readable, policy, tuple(set(FLAGS) - set(_DUPLICATES))).any(axis=1)
    ranked = readable.assign(unsound=unsound).sort_values(["unsound", "path"])
    first = ranked.groupby("group")["pixel_hash"].transform("first")
    table["flag_exact_duplicate"] = ranked.duplicated("pixel_hash")
    table["flag_near_duplicate"] = ranked["pixel_hash"] != first
    for name in _DUPLICATES:
        table[f"flag_{name}"] = table[f"flag_{name}"].eq(True)


def _dropping(table: "pd.DataFrame", policy: CleanPolicy, names: tuple[str, ...]) -> "pd.DataFrame":
    return table[[f"flag_{name}" for name in names if getattr(policy, name) == "drop"]]


def _decide(table: "pd.DataFrame", policy: CleanPolicy) -> None:
    dropping = _dropping(table, policy, FLAGS)
    dropped = dropping.any(axis=1)
    first = dropping.idxmax(axis=1).str.removeprefix("flag_")
    table["keep"] = ~dropped
    table["reason"] = first.mask(~dropped)


def main() -> None:
    """The step."""
    table = clean(read_table(MANIFEST, "ingest"), load_params().clean)
    counts = summary(table)
    log.info("%(images)d images: %(flagged)d flagged, %(dropped)d dropped, %(kept)d kept", counts)
    log.info("flags: %s", counts["flags"])
    write_table(CLEANED, table)
    write_json(METRICS, counts)


if __name__ == "__main__":
    run_step(main)
