"""The cleaning report counts what is there, shows what is worst, and stands anything in a name."""

import base64
import io
import os
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.data.cleaning_facts import CLASSES, count_flags, flag_names, thresholds
from tasks.data.cleaning_report import render_cleaning
from tasks.data.cleaning_samples import MEMBERS, WORST, samples, worst_rows
from tasks.params import load_params
from tasks.schema import Ingest

CLEAN = load_params(Path(__file__).parents[2] / "conf/params.yaml").clean
Cleaned = Callable[..., pd.DataFrame]
VOID = {"meta", "img", "br"}


@pytest.fixture
def root(tmp_path: Path, scan: Callable[[int], Image.Image]) -> Path:
    """Sixty digits in two classes, and one of each defect."""
    folder = tmp_path / "images"
    for n in range(60):
        (folder / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        scan(n).resize((32, 32)).save(folder / "ab"[n % 2] / f"{n:02d}.png")
    scan(0).resize((32, 32)).save(folder / "a/twin.bmp")
    scan(1).resize((32, 32)).save(folder / "a/other_label.bmp")
    Image.new("L", (32, 32), 2).save(folder / "b/night.png")
    (folder / "b/broken.png").write_bytes(b"nothing")
    return folder


def table_of(root: Path, cleaned_of: Cleaned) -> pd.DataFrame:
    return cleaned_of(root).reset_index()


def config(root: Path) -> Ingest:
    sources = {"digits": {"path": str(root), "layout": "folders"}}
    limits = {"max_pixels": 10**6, "max_archive_files": 1, "max_archive_gb": 1.0}
    return Ingest.model_validate({"sources": sources, "backend": "processes", **limits})


def page_of(table: pd.DataFrame, root: Path) -> str:
    return render_cleaning(table, CLEAN, config(root), {"digits": root})


def shown_of(table: pd.DataFrame, root: Path) -> dict:
    return {one.kind: one for one in samples(table, {"digits": root}, 10**6)}


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


class Checker(HTMLParser):
    """Fails on a tag that is closed out of turn; keeps the addresses that the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert all(address.startswith("data:image/") for address in checker.addresses)
    assert "script" not in checker.tags
    assert "nan" not in text_of(page).split()
    return checker


def test_it_counts_and_says_what_to_do(root: Path, cleaned_of: Cleaned) -> None:
    table = table_of(root, cleaned_of)
    page = page_of(table, root)
    check(page)
    text = text_of(page)
    assert "60 of 64 images are kept" in text
    assert "5 carry a flag. 3 are dropped, 1 in quarantine, 1 flagged and kept" in text
    assert "1 files cannot be read" in text
    assert "2 images show a picture that is filed under another label too" in text
    flags = {flag.name: flag for flag in count_flags(table, CLEAN)}
    assert (flags["exact_duplicate"].images, flags["conflicting_label"].images) == (2, 2)
    assert (flags["unreadable"].dropped, flags["dark"].dropped) == (1, 0)
    assert flags["dark"].thresholds == {"dark": CLEAN.dark}
    assert page == page_of(table, root)


def test_thresholds_are_those_that_a_flag_goes_by() -> None:
    assert thresholds(CLEAN, "too_small") == {"min_side": CLEAN.min_side}
    assert set(thresholds(CLEAN, "near_duplicate")) == {
        "near_duplicate_similarity",
        "near_duplicate_flip",
    }
    assert thresholds(CLEAN, "unreadable") == {}


def test_duplicates_are_side_by_side_and_conflicts_show_both_labels(
    root: Path, cleaned_of: Cleaned
) -> None:
    shown = shown_of(table_of(root, cleaned_of), root)
    (twins,) = shown["exact_duplicate"].groups
    assert [picture.path for picture in twins.pictures] == ["a/00.png", "a/twin.bmp"]
    assert [picture.decision for picture in twins.pictures] == ["kept", "dropped"]
    (conflict,) = shown["conflicting_label"].groups
    assert conflict.labels == ["a", "b"]
    assert {(picture.path, picture.label) for picture in conflict.pictures} == {
        ("a/other_label.bmp", "a"),
        ("b/01.png", "b"),
    }
    # the conflict is an exact duplicate too, and is shown once
    exact = shown["exact_duplicate"]
    assert (exact.groups_in_all, exact.groups_elsewhere) == (2, 1)


def test_the_picture_is_that_of_the_file(root: Path, cleaned_of: Cleaned) -> None:
    (night,) = shown_of(table_of(root, cleaned_of), root)["dark"].pictures
    encoded = night.source.removeprefix("data:image/png;base64,")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert image.shape == (32, 32, 3)
    assert (image == 2).all()
    assert (night.size, night.label, night.decision) == ("32×32", "b", "flagged and kept")


@pytest.mark.parametrize("lower_is_worse", [True, False])
def test_the_worst_come_first_and_large_sets_are_sampled(
    digits_folder: Path, digits_cleaned: pd.DataFrame, lower_is_worse: bool
) -> None:
    table = digits_cleaned.copy()
    table["score_dark"] = (table["brightness"] * (1 if lower_is_worse else -1)).astype("float32")
    limit = table["brightness"].quantile(0.1)
    table["flag_dark"] = table["brightness"] < limit
    worst = table.loc[worst_rows(table, "dark"), "brightness"].tolist()
    assert worst == sorted(table["brightness"])[:WORST]
    duplicates = table["group"].isin(table.loc[table["flag_near_duplicate"], "group"]).sum()
    page = page_of(table, digits_folder)
    assert page.count("<img") == WORST + duplicates
    assert f"Dark: {int(table['flag_dark'].sum())} images" in text_of(page)
    assert "threshold 0.02" in page


def test_decisions_of_the_table_are_followed(root: Path, cleaned_of: Cleaned) -> None:
    table = table_of(root, cleaned_of)
    table["decision"] = np.where(table["keep"], "keep", "drop")
    dark = table["flag_dark"]
    table.loc[dark, ["decision", "reason", "keep"]] = ["quarantine", "dark", False]
    text = text_of(page_of(table, root))
    assert "59 of 64 images are kept" in text
    assert "4 are dropped, 1 in quarantine" in text
    assert "1 images are in quarantine" in text


def test_a_large_group_is_shown_in_part_and_named(
    root: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    for n in range(30):
        photo.resize((64, 64)).save(root / f"a/same{n:02d}.png")
    table = table_of(root, cleaned_of)
    (largest, *_) = shown_of(table, root)["exact_duplicate"].groups
    assert (largest.images, len(largest.pictures)) == (30, MEMBERS)
    text = text_of(page_of(table, root))
    assert f"30 images ({MEMBERS} shown)" in text
    assert "The largest group of duplicates holds 30 images" in text


def test_a_file_that_is_gone_or_broken_since_is_a_placeholder(
    root: Path, cleaned_of: Cleaned
) -> None:
    table = table_of(root, cleaned_of)
    (root / "b/night.png").unlink()
    os.mkfifo(root / "b/night.png")  # opening a pipe would wait for ever
    (root / "a/twin.bmp").unlink()
    (root / "a/00.png").write_bytes((root / "a/00.png").read_bytes()[:60])
    page = page_of(table, root)
    check(page)
    row = table.set_index("path").loc["b/night.png"]
    kinds = sum(row[f"flag_{name}"] for name in flag_names(table))
    assert page.count("the file is gone") == kinds + 1
    shown = shown_of(table, root)
    assert "broken image" in shown["exact_duplicate"].groups[0].pictures[0].problem
    assert "not an image" in shown["unreadable"].pictures[0].problem


def test_names_are_text_whatever_they_hold(
    root: Path, scan: Callable[[int], Image.Image], cleaned_of: Cleaned
) -> None:
    names = ["two\nlines.png", "🐈.png", "<script>alert(1)<b>.png", "'\"&amp;.png", "\u202egnp.png"]
    for name in names:
        (root / "b" / name).write_bytes(b"x")
    label = "<i>&\n"
    (root / label).mkdir()
    scan(5).resize((32, 32)).save(root / label / "x.png")
    os.rename(root / "b/broken.png", os.fsencode(root / "b") + b"/caf\xe9.png")
    page = page_of(table_of(root, cleaned_of), root)
    check(page)
    text = text_of(page)
    for seen in ("two\\nlines.png", "🐈.png", "<script>alert(1)<b>.png", "'\"&amp;.png"):
        assert seen in unescape(page), seen
    assert "\\u202egnp.png" in text
    assert "\u202e" not in page
    assert "&lt;i&gt;&amp;\\n" in page


def test_nothing_found_and_nothing_readable(
    digits_folder: Path, digits_cleaned: pd.DataFrame, tmp_path: Path, cleaned_of: Cleaned
) -> None:
    sound = digits_cleaned[~digits_cleaned["flag_near_duplicate"]]
    text = text_of(page_of(sound, digits_folder))
    assert "Nothing needs your attention." in text
    assert "Nothing was found" in text
    folder = tmp_path / "broken"
    (folder / "a").mkdir(parents=True)
    (folder / "a/x.png").write_bytes(b"x")
    page = page_of(table_of(folder, cleaned_of), folder)
    check(page)
    assert "0 of 1 images are kept" in text_of(page)
    assert "a (0 of 1 kept)" in text_of(page)


def test_many_classes_are_shown_in_part(digits_folder: Path, digits_cleaned: pd.DataFrame) -> None:
    table = digits_cleaned.copy()
    table["label"] = [f"class {n % 300:03d}" for n in range(len(table))]
    page = page_of(table, digits_folder)
    assert f"The {CLASSES // 2} largest and the {CLASSES // 2} smallest of 300 classes." in page
    assert page.count('class="stack"') == CLASSES


def test_images_of_any_size_stay_within_some_megabytes(tmp_path: Path, cleaned_of: Cleaned) -> None:
    noise = np.random.default_rng(0)
    for n in range(40):
        (tmp_path / "a").mkdir(exist_ok=True)
        side = (40, 700)[n % 2]
        pixels = noise.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"a/{n}.png")
    table = table_of(tmp_path, cleaned_of)
    for name in [name for name in table if name.startswith("flag_")]:
        table[name] = True
    pictures = [p for one in shown_of(table, tmp_path).values() for p in one.pictures]
    assert pictures
    assert max(len(picture.source) for picture in pictures) < 5e6 / 300
