import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from validating import check, expectations, pages, params_of

from tasks.data.validate import validate
from tasks.errors import ParamsError, ValidationFailed

pytestmark = pytest.mark.usefixtures("nothing_released", "no_network")


def test_digits_pass_and_data_docs_are_built(
    digits_manifest: pd.DataFrame, digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    target = tmp_path / "validation"
    tables = {"manifest": digits_manifest, "cleaned": digits_cleaned}
    outcomes = check(tables, target)
    assert all(outcome.success for found in outcomes.values() for outcome in found)
    first = (target / "site/index.html").read_text()
    for table, found in outcomes.items():
        assert f"{len(found)} of {len(found)} expectations hold" in first
        assert all(outcome.description in pages(target, table) for outcome in found)
    assert "nothing is released yet" in first
    assert "thumbnail" in digits_cleaned.columns, "the caller's table must stay as it was"


def test_result_is_the_same_every_time(digits_cleaned: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("one", "two"):
        check({"cleaned": digits_cleaned}, tmp_path / name)
    one, two = ((tmp_path / name / "result.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(json.loads(one)["cleaned"]) >= 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"min_classes": 11},
            ["column_unique_value_count", "observed: 10;", "min_value 11 (validate.min_classes)"],
        ),
        (
            {"min_per_class": 178},
            ["'digits/2/0002.png'", "177 images", "min_value 178", "'digits/8/0008.png'"],
        ),
        (
            {"min_side": 9},
            ["1797 of 1797 rows", "min_value 9", "shorter_side 8", "'digits/0/0000.png'"],
        ),
        ({"max_side": 7}, ["longer_side 8", "max_value 7 (validate.max_side)"]),
        ({"labels": ["1", "2"]}, ["label '0'", "value_set ['1', '2'] (validate.labels)"]),
        ({"labels": [*"0123456789", "ten"]}, ["no image of 'ten'", "validate.labels"]),
    ],
)
def test_failure_names_expectation_value_limit_and_rows(
    digits_cleaned: pd.DataFrame,
    digits_folder: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    words: list[str],
) -> None:
    target = tmp_path / "validation"
    with pytest.raises(ValidationFailed) as caught:
        check({"cleaned": digits_cleaned}, target, images=digits_folder, **changes)
    message = str(caught.value)
    for word in words:
        assert word in message
    shown = message.count(".png'")
    assert shown <= 10
    assert caught.value.exit_code == 3
    assert "Failed" in pages(target)
    assert pages(target).count("data:image/") == shown
    (failed,) = (
        one for one in json.loads((target / "result.json").read_text())["cleaned"]
        if not one["success"]
    )  # fmt: skip
    assert len(failed["rows"]) == shown


def test_what_is_flagged_is_shown_even_where_it_is_no_image(
    photos: Path, tmp_path: Path, cleaned_of: Callable[..., pd.DataFrame]
) -> None:
    table = {"cleaned": cleaned_of(photos).reset_index()}
    passing = {"labels": None, "min_per_class": 3, "max_flagged_share": 0.2}
    passing["max_duplicate_share"] = 0.05
    check(table, tmp_path / "validation", images=photos, **passing)
    failing = passing | {"max_flagged_share": 0.1}
    with pytest.raises(ValidationFailed) as caught:
        check(table, tmp_path / "validation", images=photos, **failing)
    assert "2 of 11 files (18.18%)" in str(caught.value)
    assert "max_value 0.1 (validate.max_flagged_share)" in str(caught.value)
    assert "'cat/broken\\nname.png': label 'cat', unreadable" in str(caught.value)
    assert "cat/again.png" not in str(caught.value), "duplicates have a warning of their own"
    page = pages(tmp_path / "validation")
    assert "cannot be shown: not an image in a known format" in page
    assert "cannot be shown: empty file (0 bytes)" in page
    assert "cat<br>cat/again.png<br>exact_duplicate" in page


def test_an_image_that_has_gone_is_a_box_with_the_reason(
    photos: Path, tmp_path: Path, cleaned_of: Callable[..., pd.DataFrame]
) -> None:
    table = {"cleaned": cleaned_of(photos).reset_index()}
    (photos / "dog/2.png").unlink()
    entries = [
        {"type": "expect_column_values_to_not_be_in_set",
         "kwargs": {"column": "path", "value_set": ["dog/1.png", "dog/2.png"]}},
    ]  # fmt: skip
    with pytest.raises(ValidationFailed, match=r"path 'dog/2\.png'|'dog/2\.png'"):
        check(table, tmp_path / "validation", entries, images=photos)
    page = pages(tmp_path / "validation")
    assert "cannot be shown: the file does not exist" in page
    assert page.count("data:image/") == 1


def test_names_of_files_and_classes_are_text_not_markup(
    photos: Path, tmp_path: Path, cleaned_of: Callable[..., pd.DataFrame]
) -> None:
    (photos / "dog").rename(photos / "dog<script>$x")
    table = {"cleaned": cleaned_of(photos).reset_index()}
    with pytest.raises(ValidationFailed):
        check(table, tmp_path / "validation", images=photos, labels=["cat"], min_per_class=3)
    page = pages(tmp_path / "validation")
    assert "dog<script>" not in page
    assert "dog&lt;script&gt;&#36;x/1.png" in page


def test_unreadable_files_stop_the_run_by_the_manifest_alone(
    photos: Path, tmp_path: Path, cleaned_of: Callable[..., pd.DataFrame]
) -> None:
    manifest = cleaned_of(photos).reset_index().drop(columns=["keep", "reason", "group"])
    with pytest.raises(ValidationFailed) as caught:
        check({"manifest": manifest}, tmp_path / "v", images=photos, min_readable_share=0.9)
    assert "Most files can be read" in str(caught.value)
    assert "2 of 11 rows; limit: mostly 0.9 (validate.min_readable_share)" in str(caught.value)
    assert "'cat/empty.png': label 'cat', error 'empty file (0 bytes)'" in str(caught.value)
    assert "cannot be shown: empty file" in pages(tmp_path / "v", "manifest")


def test_a_null_in_a_kept_row_is_found(digits_cleaned: pd.DataFrame, tmp_path: Path) -> None:
    cleaned = digits_cleaned.copy()
    cleaned.loc[5, "brightness"] = None
    with pytest.raises(ValidationFailed, match="Every kept row has a brightness") as caught:
        check({"cleaned": cleaned}, tmp_path / "validation")
    assert f"{cleaned.loc[5, 'path']!r}" in str(caught.value)


def test_a_class_dropped_as_a_whole_and_nothing_kept(
    digits_cleaned: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cleaned = digits_cleaned.copy()
    cleaned["keep"] = cleaned["label"] != "7"
    with pytest.raises(ValidationFailed, match=r"'digits/7/0007.png': label '7', 0 images"):
        check({"cleaned": cleaned}, tmp_path / "validation", labels=None)
    assert "observed: inf: 183 images of '3', 0 of '7'" in caplog.text
    cleaned["keep"] = False
    with pytest.raises(ValidationFailed, match="There are enough classes"):
        check({"cleaned": cleaned}, tmp_path / "validation")


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_warning_is_reported_and_the_run_goes_on(
    digits_cleaned: pd.DataFrame,
    digits_folder: Path,
    tmp_path: Path,
    severity: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entry = {"type": "expect_table_row_count_to_be_between", "severity": severity,
             "kwargs": {"max_value": 1000}, "description": "A small set"}  # fmt: skip
    caplog.set_level("INFO")
    check({"cleaned": digits_cleaned}, tmp_path / "v", [entry], images=digits_folder)
    assert f"{severity}, the run goes on: A small set" in caplog.text
    assert "observed: 1797; limit: max_value 1000" in caplog.text
    (result,) = json.loads((tmp_path / "v/result.json").read_text())["cleaned"]
    assert (result["severity"], result["success"]) == (severity, False)
    assert f"Severity {severity}: is reported." in pages(tmp_path / "v")


def test_a_mistake_stops_before_anything_is_written(
    digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    folder = expectations(tmp_path, "splits", [{"type": "expect_column_values_to_be_betwen"}])
    with pytest.raises(ParamsError, match=r"splits\.yaml, entry 1 .*did you mean"):
        validate({"cleaned": digits_cleaned}, params_of(Path()), tmp_path / "v", folder)
    assert not (tmp_path / "v").exists()
