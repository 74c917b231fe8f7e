"""`visionloop data suspects`: what cross-validation doubts, carried into the review sheet."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.review import write_sheet
from tasks.data.review import SHEET, SUSPECT, read_rows, read_sheet, write_rows
from tasks.data.tables import CLEANED
from tasks.evaluation.cross_validate import TARGET
from tasks.evaluation.label_suspects import TABLE, Suspect, write_table
from tasks.files import sha256

runner = CliRunner()


def suspect(name: str, label: str, likelier: str, doubt: float) -> Suspect:
    return Suspect(f"{name:0>32}", f"mine/{label}/{name}.png", 0, label, likelier, 0.02, 0.9, doubt)


SUSPECTS = [suspect("a1", "cat", "dog", 0.99), suspect("a2", "dog", "cat", 0.98)]
SUSPECTS += [suspect("a3", "cat", "fox", 0.9), suspect("a4", "fox", "cat", 0.8)]


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """After a cross-validation: a2 is dark and flagged, a3 left out, a4 under another label now."""
    for folder in ("conf", "data/metrics"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    write_table(TARGET / TABLE, SUSPECTS)
    cleaned = pd.DataFrame({"pixel_hash": [one.pixel_hash for one in SUSPECTS]})
    cleaned["path"] = [one.path for one in SUSPECTS]
    cleaned["label"] = ["cat", "dog", "cat", "dog"]
    cleaned["flag_dark"] = [False, True, False, False]
    cleaned["keep"] = [True, True, False, True]
    cleaned["decision"] = ["keep", "flag", "drop", "keep"]
    cleaned["reason"] = [None, "dark", "exact_duplicate", None]
    cleaned.to_parquet(CLEANED)
    return tmp_path


def run(*arguments: str) -> dict[str, object]:
    result = runner.invoke(app, ["data", "suspects", "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def counts(found: dict[str, object]) -> tuple[object, ...]:
    return tuple(found[name] for name in ("added", "asked", "decided", "gone", "written"))


def test_nothing_is_written_unless_asked_for() -> None:
    assert counts(run()) == (2, 0, 0, 2, False)
    assert not SHEET.exists()
    shown = runner.invoke(app, ["data", "suspects"]).output
    assert "nothing was written" in shown
    assert shown.index("mine/cat/a1.png") < shown.index("mine/dog/a2.png")
    assert not SHEET.exists()


def test_the_sheet_asks_and_changes_no_label() -> None:
    assert counts(run("--write")) == (2, 0, 0, 2, True)
    rows = read_rows(SHEET)
    assert [(row["path"], row["label"], row["new_label"]) for row in rows] == [
        ("mine/cat/a1.png", "cat", "dog"),
        ("mine/dog/a2.png", "dog", "cat"),
    ]
    assert rows[0]["note"] == "cat 2.0%, dog 90.0%"
    assert read_sheet(SHEET).decided == {}


def test_a_second_time_adds_nothing() -> None:
    run("--write")
    before = sha256(SHEET)
    assert counts(run("--write")) == (0, 2, 0, 2, True)
    assert sha256(SHEET) == before


def test_a_limit_takes_the_worst() -> None:
    assert counts(run("--write", "--limit", "1")) == (1, 0, 0, 0, True)
    assert [row["path"] for row in read_rows(SHEET)] == ["mine/cat/a1.png"]
    assert counts(run("--write")) == (1, 1, 0, 2, True)


def test_any_decision_can_be_written_beside_the_likelier_label() -> None:
    run("--write")
    rows = read_rows(SHEET)
    rows[0]["decision"], rows[1]["decision"] = "relabel", "keep"
    write_rows(SHEET, rows)
    decided = read_sheet(SHEET)
    assert decided.labels == {SUSPECTS[0].pixel_hash: "dog"}
    assert decided.decided[SUSPECTS[1].pixel_hash] == "keep"
    assert counts(run("--write")) == (0, 0, 2, 2, True)
    assert read_rows(SHEET) == rows, "a decision was touched"


def test_a_later_review_keeps_what_was_asked() -> None:
    run("--write")
    asked = write_sheet()
    assert asked.open == 2
    rows = {row["path"]: row for row in read_rows(SHEET)}
    assert rows["mine/dog/a2.png"]["flags"] == f"dark {SUSPECT}"
    assert rows["mine/cat/a1.png"]["flags"] == SUSPECT
    assert {row["new_label"] for row in rows.values()} == {"cat", "dog"}


def test_flagged_images_are_asked_about_once() -> None:
    write_sheet()
    run("--write")
    rows = read_rows(SHEET)
    assert [row["path"] for row in rows] == ["mine/dog/a2.png", "mine/cat/a1.png"]
    assert (rows[0]["flags"], rows[0]["new_label"]) == (f"dark {SUSPECT}", "cat")


def test_a_later_review_forgets_images_that_changed() -> None:
    run("--write")
    table = pd.read_parquet(CLEANED)
    table.loc[0, "label"] = "dog"
    table.to_parquet(CLEANED)
    write_sheet()
    assert [row["path"] for row in read_rows(SHEET)] == ["mine/dog/a2.png"]


def test_a_mistake_in_the_sheet_stops_it_unwritten() -> None:
    run("--write", "--limit", "1")
    text = SHEET.read_text().replace(f",{SUSPECT},,,", f",{SUSPECT},,perhaps,")
    SHEET.write_text(text)
    result = runner.invoke(app, ["data", "suspects", "--write"])
    assert result.exit_code != 0
    assert "perhaps" in result.output
    assert SHEET.read_text() == text


def test_without_a_cross_validation_the_way_out_is_named() -> None:
    (TARGET / TABLE).unlink()
    result = runner.invoke(app, ["data", "suspects"])
    assert result.exit_code != 0
    assert "cross_validate.enabled" in result.output
    assert "Traceback" not in result.output


def test_no_suspect_is_said_in_a_line() -> None:
    write_table(TARGET / TABLE, [])
    shown = runner.invoke(app, ["data", "suspects", "--write"])
    assert shown.exit_code == 0
    assert shown.output.startswith("cross-validation doubts no label")
    assert run()["suspects"] == []
