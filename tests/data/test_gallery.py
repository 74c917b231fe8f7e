"""Our own expectations and those of Great Expectations' gallery, on real tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from validating import check

from tasks.data.validation.outcomes import Outcome
from tasks.errors import ValidationFailed

pytestmark = pytest.mark.usefixtures("nothing_released", "no_network")


def test_class_imbalance_is_largest_over_smallest(
    digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    """183 threes, and of 174 eights all but 61 taken away: three to one."""
    eights = digits_cleaned.index[digits_cleaned["label"] == "8"]
    cleaned = digits_cleaned.drop(index=eights[61:])

    def ask(limit: float) -> Outcome:
        entry = {"type": "expect_class_imbalance_ratio_to_be_between",
                 "kwargs": {"max_value": limit}, "severity": "info"}  # fmt: skip
        return check({"cleaned": cleaned}, tmp_path / "v", [entry])["cleaned"][0]

    assert ask(3.0).success
    failed = ask(2.99)
    assert not failed.success
    assert failed.observed == "3: 183 images of '3', 61 of '8'"
    assert {row["label"] for row in failed.rows} == {"8"}


def test_share_of_duplicates_counts_the_named_flags_alone(
    photos: Path, tmp_path: Path, cleaned_of: Callable[..., pd.DataFrame]
) -> None:
    table = {"cleaned": cleaned_of(photos).reset_index()}

    def ask(flags: list[str], limit: float) -> bool:
        entry = {"type": "expect_flagged_share_to_be_between", "severity": "warning",
                 "kwargs": {"flags": flags, "max_value": limit}}  # fmt: skip
        return check(table, tmp_path / "v", [entry], images=photos)["cleaned"][0].success

    assert ask(["exact_duplicate"], 0.1)  # 1 of 11
    assert not ask(["exact_duplicate"], 0.09)
    assert not ask(["exact_duplicate", "unreadable"], 0.25)  # 3 of 11


def test_a_table_without_flags_has_no_share_of_them(
    digits_manifest: pd.DataFrame, tmp_path: Path
) -> None:
    entry = {"type": "expect_flagged_share_to_be_between", "kwargs": {"max_value": 1}}
    with pytest.raises(ValidationFailed, match="observed: the table has no flags"):
        check({"manifest": digits_manifest}, tmp_path / "v", [entry])


def test_an_expectation_that_cannot_be_evaluated_fails(
    digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    entry = {"type": "expect_column_values_to_be_between",
             "kwargs": {"column": "label", "min_value": 3}}  # fmt: skip
    with pytest.raises(ValidationFailed, match="observed: an error: "):
        check({"cleaned": digits_cleaned}, tmp_path / "v", [entry])


def test_any_expectation_of_the_gallery_can_be_added(
    digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    entries: list[dict[str, Any]] = [
        {"type": "expect_column_values_to_match_regex",
         "kwargs": {"column": "path", "regex": r"^digits/\d/\d{4}\.png$"}},
        {"type": "expect_column_mean_to_be_between",
         "kwargs": {"column": "brightness", "min_value": 0.2, "max_value": 0.4}},
        {"type": "expect_column_pair_values_to_be_equal",
         "kwargs": {"column_A": "width", "column_B": "height"}},
    ]  # fmt: skip
    found = check({"cleaned": digits_cleaned}, tmp_path / "v", entries)["cleaned"]
    assert [one.success for one in found] == [True, True, True]
    entries[1]["kwargs"]["max_value"] = 0.3
    with pytest.raises(ValidationFailed, match=r"expect_column_mean_to_be_between\(brightness\)"):
        check({"cleaned": digits_cleaned}, tmp_path / "v", entries)
