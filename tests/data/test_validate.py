import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks.data.validate import validate
from tasks.data.validation.expectations import FOLDER
from tasks.data.validation.outcomes import Outcome
from tasks.errors import ParamsError, ValidationFailed
from tasks.params import check_params, read_yaml
from tasks.schema import Params

ROOT = Path(__file__).parents[2]
EXPECTATIONS = ROOT / FOLDER


def params_of(images: Path, **changes: Any) -> Params:
    """The quickstart's params for another folder, with values of `validate` changed."""
    values = read_yaml(ROOT / "conf/params.yaml")
    values["ingest"]["sources"] = {"digits": {"path": str(images), "layout": "folders"}}
    values["validate"] |= changes
    return check_params(values)


@pytest.fixture(autouse=True)
def nothing_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def photos(tmp_path: Path, photo: Image.Image) -> Path:
    """Four photographs of a cat, four of a dog, two files that are none, a copy."""
    folder = tmp_path / "photos"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(4):
            turned = photo.rotate(90 * number + 45 * (label == "dog"))
            turned.save(folder / label / f"{number}.png")
    (folder / "cat/broken\nname.png").write_bytes(b"x")
    (folder / "cat/empty.png").write_bytes(b"")
    shutil.copy(folder / "cat/0.png", folder / "cat/again.png")
    return folder


def expectations(folder: Path, table: str, entries: list[dict[str, Any]]) -> Path:
    """A copy of conf/expectations in which `table` has these entries."""
    copy = Path(shutil.copytree(EXPECTATIONS, folder / "expectations", dirs_exist_ok=True))
    YAML().dump({"expectations": entries}, copy / f"{table}.yaml")
    return copy


def check(
    tables: dict[str, pd.DataFrame],
    target: Path,
    entries: list[dict[str, Any]] | None = None,
    images: Path = Path("images"),
    **changes: Any,
) -> dict[str, list[Outcome]]:
    """Validate tables by conf/expectations, or the only table by these entries."""
    folder = EXPECTATIONS
    if entries is not None:
        folder = expectations(target.parent, next(iter(tables)), entries)
    return validate(tables, params_of(images, **changes), target, folder)


def pages(target: Path, table: str = "cleaned") -> str:
    found = (target / "site").glob(f"validations/{table}/**/*.html")
    return "".join(file.read_text() for file in found)


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


def test_a_mistake_stops_before_anything_is_written(
    digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    folder = expectations(tmp_path, "splits", [{"type": "expect_column_values_to_be_betwen"}])
    with pytest.raises(ParamsError, match=r"splits\.yaml, entry 1 .*did you mean"):
        validate({"cleaned": digits_cleaned}, params_of(Path()), tmp_path / "v", folder)
    assert not (tmp_path / "v").exists()
