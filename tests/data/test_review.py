"""A person's decisions on images: written, edited, checked and applied."""

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tasks.data.clean import clean
from tasks.data.ingest import ingest
from tasks.data.review import (
    COLUMNS,
    Decisions,
    decisions_of,
    read_rows,
    read_sheet,
    to_review,
    write_rows,
)
from tasks.data.sources.folders import find_files
from tasks.errors import DataError
from tasks.params import load_params
from tasks.schema import Clean

CLEAN = load_params(Path(__file__).parents[2] / "conf/params.yaml").clean


@pytest.fixture
def root(tmp_path: Path, scan: Callable[[int], Image.Image]) -> Path:
    """Twenty digits, a dark one, a copy of one, and one under two labels."""
    folder = tmp_path / "images"
    for n in range(20):
        (folder / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        scan(n).resize((32, 32)).save(folder / "ab"[n % 2] / f"{n:02d}.png")
    Image.new("L", (32, 32), 2).save(folder / "b/night.png")
    scan(0).resize((32, 32)).save(folder / "a/twin.bmp")
    scan(1).resize((32, 32)).save(folder / "a/other.bmp")
    (folder / "b/broken.png").write_bytes(b"no image")
    return folder


def cleaned(root: Path, review: Decisions | None = None, **policy: str) -> pd.DataFrame:
    config = Clean.model_validate(
        CLEAN.model_dump() | {"policy": CLEAN.policy.model_dump() | policy}
    )
    manifest = ingest("mine", find_files(root), 10**6, 1).to_pandas()
    return clean(manifest, config, review).table.set_index("path")


def edited(sheet: Path, **decisions: str) -> Decisions:
    """The decisions after somebody wrote "keep", "drop" or a new label beside file names."""
    rows = read_rows(sheet)
    for row in rows:
        word = decisions.get(Path(row["path"]).stem, "")
        is_label = word not in ("", "keep", "drop")
        row |= {"decision": "relabel" if is_label else word, "new_label": word if is_label else ""}
    write_rows(sheet, rows)
    return read_sheet(sheet)


def sheet_of(root: Path, table: pd.DataFrame) -> Path:
    sheet = root.parent / "review.csv"
    write_rows(sheet, to_review(table.reset_index(), read_rows(sheet)))
    return sheet


def test_the_sheet_asks_about_what_is_flagged_the_quarantined_first(root: Path) -> None:
    rows = read_rows(sheet_of(root, cleaned(root)))
    assert list(rows[0]) == list(COLUMNS)
    asked = [row["path"] for row in rows]
    assert set(asked) == {"mine/a/other.bmp", "mine/b/night.png", "mine/a/twin.bmp"}
    assert asked[0] == "mine/a/other.bmp", "its label contradicts another's: in quarantine"
    night = next(row for row in rows if row["path"] == "mine/b/night.png")
    assert "dark" in night["flags"].split()
    assert (night["label"], night["decision"], night["reason"]) == ("b", "", "")


def test_decisions_are_applied_before_the_policy(root: Path) -> None:
    before = cleaned(root)
    assert before.loc["mine/b/night.png", "keep"]
    assert not before.loc["mine/a/other.bmp", "keep"]
    assert not before.loc["mine/b/01.png", "keep"]
    after = cleaned(root, edited(sheet_of(root, before), night="drop", other="b"))
    assert not after.loc["mine/b/night.png", "keep"]
    assert after.loc["mine/b/night.png", "reason"] == "review"
    one = after.loc[["mine/a/other.bmp", "mine/b/01.png"]]
    assert list(one["label"]) == ["b", "b"], "a decision is on the pixels, wherever they are"
    assert one["keep"].sum() == 1, "the same pixels are used once"
    assert not after["flag_conflicting_label"].any()


def test_keep_brings_an_image_back(root: Path) -> None:
    dropped = cleaned(root, dark="drop", low_contrast="drop", low_information="drop")
    assert not dropped.loc["mine/b/night.png", "keep"]
    decisions = edited(sheet_of(root, dropped), night="keep")
    back = cleaned(root, decisions, dark="drop", low_contrast="drop", low_information="drop")
    assert back.loc["mine/b/night.png", "keep"]
    assert back.loc["mine/b/night.png", "decision"] == "keep"


def test_a_decision_outlives_renaming_and_another_review(root: Path) -> None:
    sheet = sheet_of(root, cleaned(root))
    edited(sheet, night="drop")
    (root / "b/night.png").rename(root / "b/renamed.png")
    table = cleaned(root, read_sheet(sheet))
    assert not table.loc["mine/b/renamed.png", "keep"]
    rows = read_rows(sheet_of(root, table))
    assert [row["decision"] for row in rows].count("drop") == 1
    assert len({row["pixel_hash"] for row in rows}) == len(rows)


def test_decisions_survive_as_a_table(root: Path) -> None:
    decisions = edited(sheet_of(root, cleaned(root)), night="drop", other="b")
    rows = [(key, word, decisions.labels.get(key)) for key, word in decisions.decided.items()]
    table = pd.DataFrame(rows, columns=["pixel_hash", "decision", "label"])
    assert decisions_of(table) == decisions


def test_a_spreadsheets_separators_and_mark_are_read(root: Path) -> None:
    sheet = sheet_of(root, cleaned(root))
    expected = edited(sheet, night="drop", other="b")
    rows = list(csv.reader(sheet.read_text().splitlines()))
    text = "\r\n".join(";".join(row) for row in rows)
    sheet.write_text("\ufeff" + text, encoding="utf-8")
    assert read_sheet(sheet) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("abc,a.png,a,dark,,remove,,", "line 2: decision 'remove' is none of keep, drop, relabel"),
        ("abc,a.png,a,dark,,relabel,,", "line 2: relabel needs a new_label"),
        ("abc,a.png,a,dark,,keep,b,", "line 2: new_label is given, but the decision is 'keep'"),
        (",a.png,a,dark,,keep,,", "line 2: pixel_hash is empty"),
        ("abc,a.png,a,,,keep,,\nabc,b.png,a,,,drop,,", "line 3: 'b.png' was decided on"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    sheet = tmp_path / "review.csv"
    sheet.write_text(",".join(COLUMNS) + "\n" + line + "\n")
    with pytest.raises(DataError, match=words):
        read_sheet(sheet)


def test_a_file_that_is_no_sheet_is_refused(tmp_path: Path) -> None:
    sheet = tmp_path / "review.csv"
    sheet.write_text("pixel_hash,path\n")
    with pytest.raises(DataError, match="has no column 'label'"):
        read_sheet(sheet)
    sheet.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="save it as CSV in UTF-8"):
        read_sheet(sheet)
    assert read_sheet(tmp_path / "nowhere.csv") == Decisions({}, {})
