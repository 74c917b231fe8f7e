from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from tasks.data.clean import FLAGS, summary

Cleaned = Callable[..., pd.DataFrame]


@pytest.fixture
def root(tmp_path: Path, photo: Image.Image) -> Path:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
    photo.save(tmp_path / "cat/a.png")
    photo.rotate(180).save(tmp_path / "dog/z.png")
    return tmp_path


def flagged(table: pd.DataFrame, name: str) -> set[str]:
    return set(table.index[table[f"flag_{name}"]])


def test_every_row_stays_with_all_columns(root: Path, cleaned_of: Cleaned) -> None:
    (root / "cat/broken.png").write_bytes(b"x")
    table = cleaned_of(root)
    assert list(table.index) == ["cat/a.png", "cat/broken.png", "dog/z.png"]
    assert {f"flag_{name}" for name in FLAGS} <= set(table.columns)
    row = table.loc["cat/broken.png"]
    assert (bool(row["keep"]), row["reason"], row["group"]) == (
        False,
        "unreadable",
        row["file_hash"],
    )
    assert flagged(table, "unreadable") == {"cat/broken.png"}
    assert table["reason"].isna().sum() == 2


def test_exact_duplicates_keep_the_first_by_path(
    root: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    photo.save(root / "cat/b.bmp")
    photo.save(root / "cat/c.tiff")
    table = cleaned_of(root)
    assert flagged(table, "exact_duplicate") == {"cat/b.bmp", "cat/c.tiff"}
    assert flagged(table, "near_duplicate") == set()
    assert set(table.index[table["keep"]]) == {"cat/a.png", "dog/z.png"}
    assert table.loc[["cat/a.png", "cat/b.bmp", "cat/c.tiff"], "group"].nunique() == 1


def test_conflicting_labels_drop_every_member(
    root: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    photo.save(root / "dog/a.bmp")
    table = cleaned_of(root)
    assert flagged(table, "conflicting_label") == {"cat/a.png", "dog/a.bmp"}
    assert set(table.index[table["keep"]]) == {"dog/z.png"}
    assert table.loc["cat/a.png", "reason"] == "conflicting_label"


def test_policy_decides_but_flags_stay(root: Path, photo: Image.Image, cleaned_of: Cleaned) -> None:
    photo.save(root / "dog/a.bmp")
    table = cleaned_of(root, policy={"conflicting_label": "flag", "exact_duplicate": "flag"})
    assert table["keep"].all()
    assert flagged(table, "exact_duplicate") == {"dog/a.bmp"}
    assert table.loc["dog/a.bmp", "decision"] == "flag"
    quiet = cleaned_of(root, policy={"conflicting_label": "keep", "exact_duplicate": "keep"})
    assert flagged(quiet, "exact_duplicate") == set()
    out = cleaned_of(root, policy={"conflicting_label": "quarantine", "exact_duplicate": "flag"})
    assert list(out["decision"]) == ["quarantine", "quarantine", "keep"]
    assert list(out["keep"]) == [False, False, True]


def test_sizes_shapes_and_modes_are_odd_beside_the_rest(
    tmp_path: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(30):
        part = photo.crop((number * 7, number * 4, number * 7 + 300, number * 4 + 200))
        part.save(tmp_path / f"cat/{number:02d}.png")
    photo.resize((40, 27)).save(tmp_path / "cat/small.png")
    photo.resize((1800, 1200)).save(tmp_path / "cat/large.png")
    photo.crop((0, 0, 600, 60)).save(tmp_path / "cat/wide.png")
    photo.crop((9, 9, 309, 209)).convert("L").save(tmp_path / "cat/grey.png")
    photo.crop((5, 5, 305, 205)).convert("L").convert("RGB").save(tmp_path / "cat/greyish.png")
    flat = Image.new("RGB", (300, 200), (120, 90, 60))
    flat.save(tmp_path / "cat/flat.png")
    table = cleaned_of(tmp_path, wrong_mode=0.1)
    assert flagged(table, "odd_size") == {"cat/small.png", "cat/large.png"}
    assert flagged(table, "odd_aspect_ratio") == {"cat/wide.png"}
    assert flagged(table, "wrong_mode") == {"cat/grey.png", "cat/greyish.png"}
    assert flagged(table, "low_contrast") == {"cat/flat.png"}
    assert flagged(table, "low_information") == {"cat/flat.png"}
    assert "cat/flat.png" in flagged(table, "outlier")
    assert table.loc["cat/small.png", "score_odd_size"] == pytest.approx(7.45, abs=0.01)


def test_a_class_too_small_to_have_a_spread_has_no_outliers(
    root: Path, cleaned_of: Cleaned
) -> None:
    assert cleaned_of(root)["score_outlier"].isna().all()


def test_near_duplicates_are_found_and_look_alikes_are_not(
    root: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    photo.save(root / "cat/b.jpg", quality=60)
    photo.resize((320, 214)).save(root / "cat/c.png")
    ImageEnhance.Brightness(photo).enhance(0.7).save(root / "cat/d.png")
    coarse = photo.resize((16, 11), Image.Resampling.BOX)  # much the same hash, none of the details
    coarse.resize(photo.size).save(root / "cat/e.png")
    table = cleaned_of(root, policy={"near_duplicate": "drop"})
    assert flagged(table, "near_duplicate") == {"cat/b.jpg", "cat/c.png", "cat/d.png"}
    assert table.loc["cat/b.jpg", "reason"] == "near_duplicate"
    assert table.loc["cat/e.png", "group"] != table.loc["cat/a.png", "group"]
    least = table.loc[["cat/a.png", "cat/b.jpg", "cat/c.png", "cat/d.png"], "score_near_duplicate"]
    assert least.min() > 0.86 > table.loc["cat/e.png", "score_near_duplicate"]


def test_a_sound_near_duplicate_survives_an_unsound_first_one(
    root: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    photo.resize((96, 64), Image.Resampling.BOX).save(root / "cat/0_thumbnail.png")
    table = cleaned_of(root, policy={"near_duplicate": "drop"}, min_side=100)
    assert table.loc["cat/0_thumbnail.png", "group"] == table.loc["cat/a.png", "group"]
    assert set(table.index[table["keep"]]) == {"cat/a.png", "dog/z.png"}


def test_size_light_and_focus(root: Path, photo: Image.Image, cleaned_of: Cleaned) -> None:
    Image.new("L", (64, 64), 2).save(root / "cat/black.png")
    Image.new("L", (64, 64), 254).save(root / "cat/white.png")
    photo.crop((0, 0, 100, 3)).save(root / "cat/sliver.png")
    photo.resize((16, 11)).resize((640, 427)).save(root / "dog/blurred.png")
    table = cleaned_of(root, blurry=0.0002)
    assert flagged(table, "dark") == {"cat/black.png"}
    assert flagged(table, "bright") == {"cat/white.png"}
    assert flagged(table, "too_small") == {"cat/sliver.png"}
    assert {"dog/blurred.png"} <= flagged(table, "blurry")
    assert not {"cat/a.png", "dog/z.png"} & flagged(table, "blurry")


def test_summary_adds_up(root: Path, photo: Image.Image, cleaned_of: Cleaned) -> None:
    photo.save(root / "cat/b.bmp")
    (root / "cat/broken.png").write_bytes(b"x")
    counts = summary(cleaned_of(root).reset_index())
    assert (counts["images"], counts["kept"], counts["dropped"]) == (4, 2, 2)
    assert counts["flagged"] == 2
    assert counts["flags"]["exact_duplicate"] == counts["flags"]["unreadable"] == 1
    assert counts["kept_per_class"] == {"cat": 1, "dog": 1}


def test_mirrored_copies_are_near_duplicates_when_asked(
    root: Path, photo: Image.Image, cleaned_of: Cleaned
) -> None:
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "cat/b.jpg")
    assert flagged(cleaned_of(root), "near_duplicate") == set()
    assert flagged(cleaned_of(root, near_duplicate_flip=True), "near_duplicate") == {"cat/b.jpg"}


def test_a_folder_without_one_readable_image(tmp_path: Path, cleaned_of: Cleaned) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.png").write_bytes(b"x")
    table = cleaned_of(tmp_path)
    assert not table["keep"].any()


def test_digits_do_not_collapse_into_groups(digits_cleaned: pd.DataFrame) -> None:
    assert digits_cleaned["group"].value_counts().max() <= 2
    assert digits_cleaned["flag_near_duplicate"].sum() <= 5
    assert digits_cleaned["keep"].all()
