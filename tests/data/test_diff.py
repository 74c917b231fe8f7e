"""The difference of two versions of a real folder: every image in its kinds, none twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.data.clean import clean
from tasks.data.diff import Difference, difference
from tasks.data.diff_page import SHOWN, examples, render
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
from tasks.data.split import assign
from tasks.errors import DataError
from tasks.params import load_params
from tasks.schema import Clean, Split

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "conf/params.yaml")
CLEAN, SPLIT, MAX_PIXELS = PARAMS.clean, PARAMS.split, PARAMS.ingest.max_pixels
Version = tuple[str, pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory, digits_folder: Path) -> Path:
    """600 of the digits, in their class folders."""
    folder = tmp_path_factory.mktemp("diff") / "scans"
    for file in sorted(digits_folder.rglob("*.png"), key=lambda path: path.name)[:600]:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name)
    return folder


@pytest.fixture
def folder(scans: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(scans, tmp_path / "scans"))


@pytest.fixture(scope="session")
def before(scans: Path) -> Version:
    return version(scans, "before")


def version(folder: Path, name: str = "after", seed: int = SPLIT.seed, **policy: str) -> Version:
    values = CLEAN.model_dump()
    values["policy"] |= policy
    cleaned, pairs = clean(manifest_of(folder), Clean.model_validate(values))
    return name, cleaned, assign(cleaned, pairs, Split(**(SPLIT.model_dump() | {"seed": seed})))


def manifest_of(folder: Path) -> pd.DataFrame:
    return ingest("digits", find_files(folder), MAX_PIXELS).to_pandas()


def paths(found: Difference, kind: str) -> set[str]:
    return {change.path for change in found.of_kind(kind)}


def new_image(folder: Path, path: str, photo: Image.Image) -> None:
    photo.crop((100, 100, 164, 164)).convert("L").save(folder / path)


def files(folder: Path, label: str) -> list[Path]:
    return sorted((folder / label).iterdir())


def test_a_version_differs_not_from_itself(before: Version) -> None:
    found = difference(before, before)
    assert found.changes == ()
    assert set(found.counts.values()) == {0}
    assert found.before == found.after
    assert found.before.images == found.before.kept == found.before.files == 600


def test_each_change_is_found_as_what_it_is(
    before: Version, folder: Path, photo: Image.Image
) -> None:
    gone, moved, renamed, rewritten = files(folder, "3")[:4]
    gone.unlink()
    moved.rename(folder / "8" / moved.name)
    renamed.rename(renamed.with_name("new name.png"))
    with Image.open(rewritten) as image:
        image.save(rewritten.with_suffix(".bmp"))
    rewritten.unlink()
    new_image(folder, "5/new.png", photo)
    (folder / "5/broken.png").write_bytes(b"")
    found = difference(before, version(folder))
    assert paths(found, "removed") == {f"digits/3/{gone.name}"}
    assert paths(found, "added") == {"digits/5/new.png"}
    assert paths(found, "relabelled") == {f"digits/8/{moved.name}"}
    assert paths(found, "renamed") == {"digits/3/new name.png", f"digits/3/{rewritten.stem}.bmp"}
    assert {kind for kind, count in found.counts.items() if not count} == {
        "moved", "left_out", "taken_in",
    }  # fmt: skip
    assert found.relabellings() == [("3", "8", 1)]
    assert (found.after.images, found.after.files, found.after.unreadable) == (600, 601, 1)


def test_the_classes_add_up(before: Version, folder: Path, photo: Image.Image) -> None:
    files(folder, "3")[0].unlink()
    moved = files(folder, "3")[0]
    moved.rename(folder / "8" / moved.name)
    new_image(folder, "5/new.png", photo)
    found = difference(before, version(folder))
    by_label = {one.label: one for one in found.classes}
    for one in found.classes:
        arrived, left = one.added + one.relabelled_to, one.removed + one.relabelled_from
        assert one.after == one.before + arrived - left
        assert one.after == len(list((folder / one.label).iterdir()))
    assert (by_label["3"].removed, by_label["3"].relabelled_from) == (1, 1)
    assert (by_label["8"].relabelled_to, by_label["5"].added) == (1, 1)


def test_other_splits_of_the_same_images_are_moves(before: Version, scans: Path) -> None:
    after = version(scans, seed=SPLIT.seed + 1)
    found = difference(before, after)
    was, is_now = (table.set_index("path")["split"] for table in (before[2], after[2]))
    assert paths(found, "moved") == set(was.index[was != is_now])
    assert sum(number for _, _, number in found.moves()) == found.counts["moved"] > 0
    assert {kind for kind, count in found.counts.items() if count} == {"moved"}


def test_what_cleaning_drops_is_no_removal(before: Version, folder: Path) -> None:
    first, second = files(folder, "0")[0], files(folder, "1")[0]
    shutil.copy(first, folder / "1" / "contradiction.png")
    shutil.copy(second, folder / "1" / "zz_copy.png")
    after = version(folder, conflicting_label="drop", exact_duplicate="drop")
    found = difference(before, after)
    assert paths(found, "left_out") == {f"digits/0/{first.name}"}
    (change,) = found.of_kind("left_out")
    assert change.after is not None
    assert change.after.reason == "conflicting_label"
    assert change.after.label == "0 / 1"
    assert paths(found, "relabelled") == {f"digits/0/{first.name}"}
    assert found.counts["added"] == found.counts["removed"] == found.counts["renamed"] == 0
    assert (found.after.images, found.after.kept, found.after.files) == (600, 599, 602)
    back = difference(after, before)
    assert paths(back, "taken_in") == paths(found, "left_out")


def test_removing_one_of_two_copies_changes_no_image(before: Version, folder: Path) -> None:
    shutil.copy(files(folder, "1")[0], folder / "1" / "zz_copy.png")
    found = difference(version(folder), before)
    assert found.changes == ()
    assert (found.before.files, found.after.files) == (601, 600)


def test_tables_of_another_version_of_the_product_are_refused(before: Version) -> None:
    old = ("v0", before[1].drop(columns=["thumbnail", "keep"]), before[2])
    with pytest.raises(DataError, match="v0 have no column keep, thumbnail"):
        difference(old, before)


def test_json_has_every_image(before: Version, scans: Path) -> None:
    found = difference(before, version(scans, seed=SPLIT.seed + 1))
    values = json.loads(json.dumps(found.as_json()))
    assert len(values["images"]) == found.counts["moved"] > SHOWN
    assert values["counts"] == found.counts
    assert values["images"][0]["before"]["split"] != values["images"][0]["after"]["split"]


def test_the_page_shows_a_sample_and_counts_all(before: Version, scans: Path) -> None:
    found = difference(before, version(scans, seed=SPLIT.seed + 1))
    page = render(found, {"digits": scans}, MAX_PIXELS)
    assert page.count("<img") == SHOWN < found.counts["moved"]
    assert f"<strong>{found.counts['moved']}</strong>" in page
    assert page.count('src="data:image/png;base64,') == SHOWN
    assert "http" not in page.split("<style>")[1]


def test_pictures_are_the_files_while_their_pixels_are_the_same(
    before: Version, folder: Path, photo: Image.Image, decoded: Callable[[str], np.ndarray]
) -> None:
    gone, overwritten, moved = files(folder, "3")[:3]
    pixels = np.asarray(Image.open(moved).convert("RGB"))
    gone.unlink()
    new_image(folder, f"3/{overwritten.name}", photo)
    moved.rename(folder / "8" / moved.name)
    found = difference(before, version(folder))
    removed = examples(found, "removed", {"digits": folder}, MAX_PIXELS)
    assert [one.stored for one in removed] == [True, True]
    assert [decoded(one.source).shape for one in removed] == [(32, 32, 3)] * 2
    (relabelled,) = examples(found, "relabelled", {"digits": folder}, MAX_PIXELS)
    assert not relabelled.stored
    assert (decoded(relabelled.source) == pixels).all()
    assert "3 → 8" in relabelled.lines


def test_names_are_text_in_the_page(before: Version, folder: Path, photo: Image.Image) -> None:
    (folder / "<i>six").mkdir()
    new_image(folder, "<i>six/<script>alert(1).png", photo)
    shutil.copy(folder / "<i>six/<script>alert(1).png", folder / "<i>six/b.png")
    cleaned = clean(manifest_of(folder), CLEAN).table
    splits = before[2]  # the new class has too few images to be split
    page = render(difference(before, ("<b>after", cleaned, splits)), {"digits": folder}, MAX_PIXELS)
    assert "<script>" not in page
    assert "<i>" not in page
    assert "<b>after" not in page
