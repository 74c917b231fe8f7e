"""`visionloop init`: a right params file for a folder, or a clear refusal."""

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tasks.params import load_params, read_yaml

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "conf" / "presets").glob("*.yaml"))
PARAMS = Path("conf/params.yaml")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_complete_and_valid(path):
    load_params(path)


def test_quickstart_preset_is_the_params_file():
    quickstart = ROOT / "conf" / "presets" / "quickstart.yaml"
    assert quickstart.read_text() == (ROOT / PARAMS).read_text()


def test_dry_run_shows_the_change_and_writes_nothing(repository, visionloop, photo_folder):
    before = PARAMS.read_bytes()
    result = visionloop("init", "--data", str(photo_folder))
    assert result.exit_code == 0
    assert "temple" in result.output
    assert f"+      path: {photo_folder}" in result.output
    assert "nothing was written" in result.output
    assert PARAMS.read_bytes() == before


def test_photographs_of_many_shapes(repository, visionloop, photo_folder):
    assert visionloop("init", "--data", str(photo_folder), "--yes").exit_code == 0
    params = load_params()
    assert params.ingest.sources["photos"].path == str(photo_folder)
    assert params.validate_.labels == ["flower", "temple"]
    assert (params.prepare.size, params.prepare.resize) == (64, "letterbox")
    assert params.train.augment.flip is True
    assert params.train.batch_size == 16
    remedy = params.train.imbalance
    assert (remedy.class_weights, remedy.focal_gamma) == ("none", 0)
    assert params.train.keep_by == "loss"


def test_small_square_scans(repository, visionloop, digit_folder):
    assert visionloop("init", "--data", str(digit_folder), "--yes").exit_code == 0
    params = load_params()
    assert (params.prepare.size, params.prepare.resize) == (16, "stretch")
    assert params.train.augment.flip is False
    assert params.validate_.labels == [str(digit) for digit in range(10)]
    smallest = min(len(list(folder.iterdir())) for folder in digit_folder.iterdir())
    assert params.validate_.min_per_class <= smallest
    assert params.clean.min_side <= 8, "the folder's own images must not be too small"


def test_small_photographs_in_colour_take_flips_and_crops(repository, visionloop, photo_folder):
    for path in photo_folder.glob("*/*"):
        small = Image.open(path).convert("RGB").resize((32, 32))
        path.unlink()
        small.save(path.with_suffix(".png"))
    assert visionloop("init", "--data", str(photo_folder), "--yes").exit_code == 0
    augment = load_params().train.augment
    assert (augment.preset, augment.flip, augment.shift) == ("light", True, None)
    assert augment.recipe.padding_crop > 0
    assert augment.recipe.rotate == 0


def test_classes_of_unequal_size_get_a_remedy(repository, visionloop, photo_folder):
    for path in list((photo_folder / "flower").iterdir()):
        ImageOps.mirror(Image.open(path)).save(path.with_stem(f"{path.stem}-mirrored"))
    for path in sorted((photo_folder / "temple").iterdir())[16:]:
        path.unlink()
    result = visionloop("init", "--data", str(photo_folder), "--yes")
    assert result.exit_code == 0, result.output
    params = load_params()
    remedy = params.train.imbalance
    assert (remedy.class_weights, remedy.focal_gamma) == ("effective_number", 2.0)
    assert (params.train.keep_by, params.tune.objectives) == ("macro_f1", ["macro_f1"])
    assert "the largest class has 5 times the images of the smallest" in PARAMS.read_text()


def test_a_class_keeps_its_margin_for_cleaning(repository, visionloop, photo_folder):
    for path in sorted((photo_folder / "temple").iterdir())[12:]:
        path.unlink()
    assert visionloop("init", "--data", str(photo_folder), "--yes").exit_code == 0
    assert load_params().validate_.min_per_class == 9
    assert load_params().validate_.min_per_split == 1
    assert "# the smallest class, 'temple', has 12" in PARAMS.read_text()


def test_every_comment_and_untouched_value_of_the_preset_stays(
    repository, visionloop, photo_folder
):
    visionloop("init", "--data", str(photo_folder), "--yes")
    text, written = PARAMS.read_text(), read_yaml(PARAMS)
    preset = read_yaml("conf/presets/photo.yaml")
    assert "# sgd or adamw" in text
    assert "# keep (no flag), flag, quarantine (out until reviewed) or drop" in text
    assert "\n\nclean:\n" in text
    untouched = ("split", "evaluate", "serve", "drift")
    assert {name: written[name] for name in untouched} == {name: preset[name] for name in untouched}
    assert written["tune"]["space"] == preset["tune"]["space"]


def test_dark_images_are_not_all_flagged_dark(repository, visionloop, photo_folder):
    for path in photo_folder.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
        image.point(lambda value: value // 40).save(path)
    assert visionloop("init", "--data", str(photo_folder), "--yes").exit_code == 0
    assert 0 < load_params().clean.dark < 0.01


def test_names_that_yaml_would_misread_come_back_as_they_are(repository, visionloop, photo_folder):
    (photo_folder / "temple").rename(photo_folder / "no")
    (photo_folder / "flower").rename(photo_folder / 'ü "x": #1')
    renamed = photo_folder.rename(photo_folder.with_name("my photos #2: true"))
    assert visionloop("init", "--data", str(renamed), "--yes").exit_code == 0
    params = load_params()
    assert params.validate_.labels == ["no", 'ü "x": #1']
    assert params.ingest.sources["my-photos-2-true"].path == str(renamed)


def test_a_folder_inside_the_repository_is_named_relative_to_it(
    repository, visionloop, photo_folder, monkeypatch
):
    shutil.move(photo_folder, repository / "data" / "mine")
    monkeypatch.chdir(repository / "data")
    assert visionloop("init", "--data", "mine", "--yes").exit_code == 0
    assert load_params(repository / PARAMS).ingest.sources["mine"].path == "data/mine"


def test_digits_restores_the_quickstart(repository, visionloop, photo_folder, commit):
    original = PARAMS.read_text()
    visionloop("init", "--data", str(photo_folder), "--yes")
    commit()
    assert visionloop("init", "--data", "digits", "--yes").exit_code == 0
    assert PARAMS.read_text() == original


def test_uncommitted_values_are_not_overwritten(repository, visionloop, photo_folder):
    mine = PARAMS.read_text().replace("epochs: 20", "epochs: 21")
    PARAMS.write_text(mine)
    refused = visionloop("init", "--data", str(photo_folder), "--yes")
    assert refused.exit_code == 2
    assert "changes that are not in git" in refused.stderr
    assert PARAMS.read_text() == mine
    assert visionloop("init", "--data", str(photo_folder), "--yes", "--force").exit_code == 0
    assert load_params().ingest.sources["photos"].path == str(photo_folder)


def test_committed_values_may_be_replaced(repository, visionloop, photo_folder, commit):
    PARAMS.write_text(PARAMS.read_text().replace("epochs: 20", "epochs: 21"))
    commit()
    assert visionloop("init", "--data", str(photo_folder), "--yes").exit_code == 0


def test_a_missing_params_file_is_written(repository, visionloop, photo_folder):
    PARAMS.unlink()
    assert visionloop("init", "--data", str(photo_folder), "--yes").exit_code == 0
    load_params()


def test_a_preset_may_be_named_and_a_wrong_one_gets_the_nearest(
    repository, visionloop, photo_folder
):
    result = visionloop("init", "--data", str(photo_folder), "--preset", "small", "--yes")
    assert result.exit_code == 0
    assert load_params().clean.min_side == 8
    wrong = visionloop("init", "--data", str(photo_folder), "--preset", "fotos")
    assert wrong.exit_code == 2
    assert "did you mean 'photo'?" in wrong.stderr


def test_declared_labels_must_be_the_folders(repository, visionloop, photo_folder):
    good = visionloop("init", "--data", str(photo_folder), "--labels", "flower, temple")
    assert good.exit_code == 0
    bad = visionloop("init", "--data", str(photo_folder), "--labels", "flower,tower")
    assert bad.exit_code == 2
    assert "no images of tower" in bad.stderr
    assert "not declared: temple" in bad.stderr


def _one_class(folder: Path) -> Path:
    shutil.rmtree(folder / "flower")
    return folder


def _two_images(folder: Path) -> Path:
    for path in sorted((folder / "temple").iterdir())[2:]:
        path.unlink()
    return folder


def _emptied(folder: Path) -> Path:
    for path in folder.iterdir():
        shutil.rmtree(path)
    return folder


def _not_images(folder: Path) -> Path:
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"not an image")
    return folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder / "nowhere", "does not exist"),
        (lambda folder: next(folder.rglob("*.jpg")), "is a file"),
        (lambda folder: folder / "temple", "no folder"),
        (_one_class, "one class only ('temple')"),
        (_two_images, "class 'temple' has 2"),
        (_emptied, "is empty"),
        (_not_images, "could be read as an image"),
    ],
    ids=["missing", "file", "no classes", "one class", "two images", "empty", "not images"],
)
def test_a_folder_that_cannot_be_learnt_from_is_refused(
    repository, visionloop, photo_folder, spoil, message
):
    before = PARAMS.read_bytes()
    result = visionloop("init", "--data", str(spoil(photo_folder)), "--yes")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert PARAMS.read_bytes() == before


def test_broken_files_among_good_ones_are_named_and_do_not_stop(
    repository, visionloop, photo_folder
):
    (photo_folder / "temple" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (photo_folder / "readme.txt").write_text("left out")
    result = visionloop("init", "--data", str(photo_folder))
    assert result.exit_code == 0
    assert "not an image: temple/broken.jpg" in result.output
    assert "1 files, left out" in result.output


def test_several_sources_are_put_together(repository, visionloop, photo_folder, digit_folder):
    (photo_folder.parent / "more" / "photos").mkdir(parents=True)
    shutil.move(photo_folder, photo_folder.parent / "more" / "photos" / "x")
    again = photo_folder.parent / "more" / "photos" / "x"
    shutil.make_archive(str(photo_folder), "zip", again)
    words = [
        "--data",
        str(photo_folder) + ".zip",
        "--data",
        str(again),
        "--data",
        str(digit_folder),
    ]
    assert visionloop("init", *words, "--yes").exit_code == 0
    params = load_params()
    assert list(params.ingest.sources) == ["photos", "x", "scans"]
    assert set(params.validate_.labels) == {"flower", "temple", *"0123456789"}


def test_a_table_gives_the_classes(repository, visionloop, photo_folder):
    rows = [
        f"{path.relative_to(photo_folder)},{path.parent.name}s"
        for path in photo_folder.rglob("*.jpg")
    ]
    table = photo_folder / "labels.csv"
    table.write_text("path,label\n" + "\n".join(rows))
    assert visionloop("init", "--data", str(table), "--yes").exit_code == 0
    source = load_params().ingest.sources["labels"]
    assert (source.layout, source.annotations) == ("table", "labels.csv")
    assert load_params().validate_.labels == ["flowers", "temples"]
