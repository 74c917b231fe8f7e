"""Mistakes in conf/expectations: one line that names the file, the entry and the way out."""

import re
from pathlib import Path

import pytest

from tasks.data.validation.expectations import FOLDER, TABLES, check_columns, load_entries
from tasks.data.validation.suites import build
from tasks.errors import ParamsError
from tasks.params import load_params
from tasks.schema import Validate

ROOT = Path(__file__).parents[2]
CONFIG = load_params(ROOT / "conf/params.yaml").validate_
COLUMNS = ["path", "label", "brightness", "keep", "flag_dark", "flag_unreadable"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for table in TABLES:
        (tmp_path / f"{table}.yaml").write_text("expectations: []\n")
    return tmp_path


def load(folder: Path, text: str, config: Validate = CONFIG) -> None:
    """All that is checked before anything is run."""
    (folder / "cleaned.yaml").write_text(text)
    entries = load_entries(config, folder)["cleaned"]
    check_columns(entries, COLUMNS)
    build(entries)


ENTRY = "expectations:\n  - type: expect_column_values_to_be_between\n    kwargs: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "expectations:\n  - type: expect_column_values_to_be_betwen",
            "entry 1 (expect_column_values_to_be_betwen): no such expectation; "
            "did you mean 'expect_column_values_to_be_between'?",
        ),
        (
            "expectations:\n  - type: expect_images_per_clas_to_be_between",
            "did you mean 'expect_images_per_class_to_be_between'?",
        ),
        (
            ENTRY + "{column: brightnes, min_value: 0}",
            "entry 1 (expect_column_values_to_be_between): the table has no column 'brightnes'; "
            "did you mean 'brightness'?",
        ),
        (ENTRY + "{colum: brightness}", "'colum' is not one of its kwargs; did you mean 'column'?"),
        (ENTRY + "{column: label, min_value: [1]}", "min_value: "),
        (ENTRY + "{min_value: 1}", "column: field required"),
        (
            ENTRY + "{column: label, min_value: {$PARAMETER: validate.min_sid}}",
            "'validate.min_sid' is not a parameter of it; did you mean 'validate.min_side'?",
        ),
        (
            ENTRY + "{column: label, min_value: {$PARAMETER: split.test}}",
            "'split.test' is not a parameter of it",
        ),
        (
            ENTRY + "{column: label, min_value: {$PARAMETER: validate.min_side, default: 3}}",
            "'default' is not a key",
        ),
        (
            ENTRY + "{column: label, min_value: 1,"
            " row_condition: {type: nullity, column: {name: kep}, is_null: true}}",
            "the table has no column 'kep'; did you mean 'keep'?",
        ),
        (
            ENTRY + "{column: label, min_value: 1, row_condition: {type: compare}}",
            "Unable to determine Condition type",
        ),
        (
            "expectations:\n  - type: expect_flagged_share_to_be_between\n"
            "    kwargs: {max_value: 1, flags: [drak]}",
            "the table has no column 'flag_drak'; did you mean 'flag_dark'?",
        ),
        (
            "expectations:\n  - type: expect_column_values_to_be_within_one_split\n"
            "    kwargs: {column: label}",
            "the table has no column 'split'",
        ),
        (
            "expectations:\n  - type: expect_flagged_share_to_be_between",
            "needs a min_value or a max_value",
        ),
        (
            ENTRY + "{column: label}\n    severity: warnin",
            "severity 'warnin' is none of critical, warning, info; did you mean 'warning'?",
        ),
        (ENTRY + "{column: label}\n    serverity: info", "'serverity' is not a key; did you mean"),
        (ENTRY + "[column]", "`kwargs` must be a mapping, got list ['column']"),
        ("expectations:\n  - expect_column_to_exist", "entry 1 must be a mapping with a `type`"),
        ("expectations:\n  - kwargs: {}", "entry 1 has no `type`"),
        ("expectation: []", "'expectation' is not a key; did you mean 'expectations'?"),
        ("expectations:", "`expectations` must be a list, got nothing"),
        ("", "must hold `key: value` pairs, got NoneType"),
        ("expectations: [", "is not valid YAML: "),
        (ENTRY + "{column: a, column: b}", 'found duplicate key "column"'),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)) as caught:
        load(folder, text)
    assert str(caught.value).startswith(str(folder / "cleaned.yaml"))
    assert "\n" not in str(caught.value)


def test_a_file_that_nothing_runs_and_one_that_is_missing(folder: Path) -> None:
    (folder / "split.yaml").write_text("expectations: []")
    with pytest.raises(ParamsError, match=r"split\.yaml: nothing .*did you mean 'splits'"):
        load_entries(CONFIG, folder)
    (folder / "split.yaml").unlink()
    (folder / "splits.yaml").unlink()
    with pytest.raises(ParamsError, match=r"splits\.yaml does not exist"):
        load_entries(CONFIG, folder)


def test_parameters_are_filled_in_and_null_leaves_an_entry_out(folder: Path) -> None:
    text = (
        "expectations:\n"
        "  - type: expect_column_values_to_be_in_set\n"
        "    kwargs: {column: label, value_set: {$PARAMETER: validate.labels}}\n"
        "  - type: expect_flagged_share_to_be_between\n"
        "    kwargs: {max_value: {$PARAMETER: validate.max_flagged_share}, min_value: 0}\n"
    )
    (folder / "cleaned.yaml").write_text(text)
    config = CONFIG.model_copy(update={"labels": ["a", "b"], "max_flagged_share": 0.25})
    labels, flagged = load_entries(config, folder)["cleaned"]
    assert labels.kwargs == {"column": "label", "value_set": ["a", "b"]}
    assert labels.limit == "value_set ['a', 'b'] (validate.labels)"
    assert flagged.limit == "max_value 0.25 (validate.max_flagged_share), min_value 0"
    (left,) = load_entries(config.model_copy(update={"labels": None}), folder)["cleaned"]
    assert left.type == flagged.type


def test_the_example_in_the_docs_is_right(folder: Path) -> None:
    page = (ROOT / "docs/data.md").read_text()
    (example,) = re.findall(r"```yaml\n(expectations:.*?)```", page, re.DOTALL)
    (folder / "cleaned.yaml").write_text(example)
    entries = load_entries(CONFIG, folder)["cleaned"]
    check_columns(entries, [*COLUMNS, "shorter_side"])
    assert [expectation.severity for expectation in build(entries)] == ["warning", "critical"]


def test_every_parameter_of_the_section_is_asked_for() -> None:
    """A key of `validate` that no shipped expectation uses would do nothing."""
    entries = load_entries(CONFIG, ROOT / FOLDER)
    used = {
        param for found in entries.values() for entry in found for param in entry.params.values()
    }
    assert used == {f"validate.{name}" for name in Validate.model_fields}
