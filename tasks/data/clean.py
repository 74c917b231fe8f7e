"""The step `clean`: data/manifest → data/cleaned.parquet, data/duplicates.parquet and counts.

Every row stays, with each detector's score and flag, its group of duplicates, what is done
with it and why. What a flag means is the policy in the params; a person's decisions in
`review` come before it.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.data.detectors import DETECTORS
from tasks.data.duplicates import components, near_duplicates
from tasks.data.phash import LENGTH
from tasks.data.review import Decisions, decisions_of
from tasks.data.tables import CLEANED, DECISIONS, DUPLICATES, read_manifest, read_table, write_table
from tasks.files import write_json
from tasks.params import load_params
from tasks.schema import Clean, CleanPolicy
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

METRICS = Path("data/metrics/clean.json")
FLAGS = tuple(CleanPolicy.model_fields)
POLICIES = ("keep", "flag", "quarantine", "drop")  # a later one overrules
_DUPLICATES = ("exact_duplicate", "near_duplicate")
_STRICTNESS = {"test": 0, "validation": 1, "train": 2}

log = logging.getLogger(__name__)


class Cleaned(NamedTuple):
    """The manifest with what was found, and the pairs of near-duplicates.

    `pairs` has left and right (pixel hashes); `table` the manifest's columns and
    score_<detector>, flag_<name> for each of FLAGS, group, decision, keep and reason.
    `score_near_duplicate` is the similarity to the most similar image that was compared.
    """

    table: "pd.DataFrame"
    pairs: "pd.DataFrame"


class Duplicates(NamedTuple):
    """The pairs of near-duplicates, and each row's group and similarity (NaN without any)."""

    pairs: "pd.DataFrame"
    group: "pd.Series[str]"
    score: "pd.Series[float]"


def clean(manifest: "pd.DataFrame", config: Clean, review: Decisions | None = None) -> Cleaned:
    """Flag what is odd and decide what stays.

    Of duplicates, exact or near, the first by path is not flagged; one that is left out for
    another reason is passed over for a sound one, and one of a given test split goes before
    others. `group` is the smallest pixel hash among all that are duplicates of each other,
    directly or through others.
    """
    table = manifest.sort_values("path", ignore_index=True)
    if review is not None:
        table["label"] = review.relabelled(table)
    table["flag_unreadable"] = table["error"].notna()
    _score(table, config)
    pairs, table["group"], similarity = _duplicates(table, config)
    table["score_near_duplicate"] = similarity.astype(np.float32)
    table["flag_conflicting_label"] = _conflicting(table)
    _flag_duplicates(table, config.policy)
    for name in FLAGS:
        if getattr(config.policy, name) == "keep":
            table[f"flag_{name}"] = False
    _decide(table, config.policy)
    if review is not None:
        review.overrule(table)
    table["keep"] = table["decision"].isin(["keep", "flag"])
    added = [f"score_{name}" for name in (*DETECTORS, "near_duplicate")]
    added += [f"flag_{name}" for name in FLAGS]
    return Cleaned(table[[*manifest.columns, *added, "group", "decision", "keep", "reason"]], pairs)


def summary(table: "pd.DataFrame") -> dict[str, object]:
    """Counts for metrics/clean.json: images, by decision, by flag, by reason and by class."""
    flags = table[[f"flag_{name}" for name in FLAGS]]
    sizes = table.loc[table["error"].isna(), "group"].value_counts()
    reasons = table.loc[~table["keep"], "reason"]
    return {
        "images": len(table),
        "kept": int(table["keep"].sum()),
        "dropped": int((table["decision"] == "drop").sum()),
        "quarantined": int((table["decision"] == "quarantine").sum()),
        "flagged": int(flags.any(axis=1).sum()),
        "flags": {name: int(table[f"flag_{name}"].sum()) for name in FLAGS},
        "left_out_for": {name: int((reasons == name).sum()) for name in (*FLAGS, "review")},
        "kept_per_class": {
            str(label): int(count) for label, count in table.groupby("label")["keep"].sum().items()
        },
        "largest_group": int(sizes.max()) if len(sizes) else 0,
    }


def _score(table: "pd.DataFrame", config: Clean) -> None:
    for name, detector in DETECTORS.items():
        score = detector.score(table).astype(np.float32).mask(table["flag_unreadable"])
        limit = getattr(config, detector.threshold)
        table[f"score_{name}"] = score
        table[f"flag_{name}"] = score < limit if detector.side == "below" else score > limit


def _duplicates(table: "pd.DataFrame", config: Clean) -> Duplicates:
    import pandas as pd

    # in the order of contents: a pair's verdict shall not depend on paths or other images
    distinct = table.dropna(subset="pixel_hash").drop_duplicates("pixel_hash")
    distinct = distinct.sort_values("pixel_hash", ignore_index=True)
    names = distinct["pixel_hash"].to_numpy(object)
    found = near_duplicates(
        np.frombuffer(bytes.fromhex("".join(distinct["phash"])), np.int8).reshape(-1, LENGTH),
        distinct["thumbnail"].tolist(),
        config.near_duplicate_similarity,
        config.near_duplicate_flip,
    )
    component = components(len(distinct), found.pairs)
    # the first in order, not the minimum: pandas finds that of strings group by group
    smallest = distinct.groupby(component)["pixel_hash"].transform("first")
    alone = table["file_hash"].fillna(table["path"])
    return Duplicates(
        pairs=pd.DataFrame({"left": names[found.pairs[:, 0]], "right": names[found.pairs[:, 1]]}),
        group=table["pixel_hash"].map(dict(zip(names, smallest, strict=True))).fillna(alone),
        score=table["pixel_hash"].map(dict(zip(names, found.scores, strict=True))),
    )


def _conflicting(table: "pd.DataFrame") -> "pd.Series[bool]":
    labels = table[~table["flag_unreadable"]].groupby("group")["label"].nunique()
    return table["group"].map(labels).fillna(0) > 1


def _flag_duplicates(table: "pd.DataFrame", policy: CleanPolicy) -> None:
    """Flag all but the first of each set of duplicates, sound images before unsound ones."""
    readable = table[~table["flag_unreadable"]]
    leaving = [
        f"flag_{name}"
        for name in FLAGS
        if getattr(policy, name) in ("drop", "quarantine") and name not in _DUPLICATES
    ]
    strictness = readable["given_split"].map(_STRICTNESS).fillna(len(_STRICTNESS))
    ranked = readable.assign(unsound=readable[leaving].any(axis=1), strictness=strictness)
    ranked = ranked.sort_values(["unsound", "strictness", "path"])
    first = ranked.groupby("group")["pixel_hash"].transform("first")
    table["flag_exact_duplicate"] = ranked.duplicated("pixel_hash")
    table["flag_near_duplicate"] = ranked["pixel_hash"] != first
    for name in _DUPLICATES:
        table[f"flag_{name}"] = table[f"flag_{name}"].eq(True)


def _decide(table: "pd.DataFrame", policy: CleanPolicy) -> None:
    """The strictest policy of an image's flags; if it leaves the image out, the first such flag."""
    strictness = {name: POLICIES.index(getattr(policy, name)) for name in FLAGS}
    weighed = np.column_stack(
        [table[f"flag_{name}"].to_numpy(bool) * strictness[name] for name in FLAGS]
    )
    worst = weighed.max(axis=1)
    table["decision"] = np.array(POLICIES, object)[worst]
    reason = np.array(FLAGS, object)[weighed.argmax(axis=1)]
    reason[worst < POLICIES.index("quarantine")] = None
    table["reason"] = reason


def main() -> None:
    """The step."""
    params = load_params()
    review = decisions_of(read_table(DECISIONS, "review"))
    table, pairs = clean(read_manifest(params.ingest.sources), params.clean, review)
    counts = summary(table)
    log.info(
        "%(images)d images: %(flagged)d flagged, %(dropped)d dropped, "
        "%(quarantined)d quarantined, %(kept)d kept",
        counts,
    )
    log.info("flags: %s", counts["flags"])
    write_table(CLEANED, table)
    write_table(DUPLICATES, pairs)
    write_json(METRICS, counts)


if __name__ == "__main__":
    run_step(main)
