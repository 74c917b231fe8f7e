import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.bundle import InputContract
from tasks.data.folds import folds
from tasks.data.prepare import prepare
from tasks.data.shards import SPLITS, open_shards
from tasks.data.split import assign
from tasks.errors import DataError
from tasks.files import sha256, write_json
from tasks.pixels import fit, read, statistics
from tasks.schema import Split

NO_PAIRS = pd.DataFrame({"left": [], "right": []})
CONTRACT = InputContract(size=16, resize="stretch", max_pixels=50_000_000)


@pytest.fixture(scope="session")
def splits(digits_cleaned: pd.DataFrame) -> pd.DataFrame:
    return assign(digits_cleaned, NO_PAIRS, Split(validation=0.15, test=0.2, seed=0, folds=None))


@pytest.fixture(scope="session")
def prepared(
    splits: pd.DataFrame, digits_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    target = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(splits, {"digits": digits_folder}, CONTRACT, target)
    return target


@pytest.fixture
def shards(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "shards"))


def test_shards_hold_every_image_as_it_is_read(
    prepared: Path, splits: pd.DataFrame, digits_folder: Path
) -> None:
    opened = open_shards(prepared)
    assert opened.classes == tuple("0123456789")
    assert opened.contract == CONTRACT
    for name in SPLITS:
        split, rows = opened.split(name), splits[splits["split"] == name]
        assert isinstance(split.images, np.memmap)
        assert split.paths == list(rows["path"])
        assert len(split) == len(split.images) == len(split.statistics) == len(rows)
        for index in range(0, len(rows), 17):
            path = split.paths[index].removeprefix("digits/")
            image = read(digits_folder / path, CONTRACT.max_pixels)
            np.testing.assert_array_equal(split.images[index], fit(image, 16, "stretch"))
            np.testing.assert_array_equal(split.statistics[index], statistics(image))
            assert opened.classes[split.labels[index]] == rows["label"].iloc[index]
            assert split.hashes[index].decode() == rows["pixel_hash"].iloc[index]
        with pytest.raises(ValueError, match="read-only"):
            split.images[0] = 0


def test_weights_reach_the_shards_and_only_when_there_are_any(
    prepared: Path, digits_cleaned: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    assert open_shards(prepared).split("train").weights is None
    weighted = digits_cleaned.assign(weight=np.nan)
    weighted.loc[weighted["label"] == "3", "weight"] = 2.5
    config = Split(validation=0.15, test=0.2, seed=0, folds=None)
    rows = assign(weighted, NO_PAIRS, config)
    prepare(rows, {"digits": digits_folder}, CONTRACT, tmp_path / "shards")
    for name in SPLITS:
        split = open_shards(tmp_path / "shards").split(name)
        assert split.weights is not None
        np.testing.assert_array_equal(split.weights, np.where(split.labels == 3, 2.5, 1.0))


def test_shards_carry_the_folds_of_the_splits(
    digits_cleaned: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    config = Split(validation=0.15, test=0.2, seed=0, folds=3)
    splits = assign(digits_cleaned, NO_PAIRS, config)
    prepare(splits, {"digits": digits_folder}, CONTRACT, tmp_path / "shards")
    shards = open_shards(tmp_path / "shards")
    for name in ("train", "validation"):
        rows = splits[splits["split"] == name]
        assert shards.folds(name).tolist() == rows["fold"].tolist()
    with pytest.raises(DataError, match="holds no folds"):
        shards.folds("test")
    everything = {hash_ for fold in folds(shards) for hash_ in fold.held_out.hashes.tolist()}
    outside = splits[splits["split"].isin(["train", "validation"])]
    assert everything == {value.encode() for value in outside["pixel_hash"]}


def test_several_processes_give_the_same_bytes(
    prepared: Path, splits: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    prepare(splits, {"digits": digits_folder}, CONTRACT, tmp_path / "again", workers=2)
    assert open_shards(tmp_path / "again").digest == open_shards(prepared).digest


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["train_images.npy", "test_labels.npy", "test_statistics.npy", "validation_paths.json"]
)
def test_an_altered_or_truncated_file_is_named(shards: Path, name: str) -> None:
    whole = (shards / name).read_bytes()
    flip(shards / name)
    with pytest.raises(DataError, match=f"{name} is truncated or was altered"):
        open_shards(shards)
    (shards / name).write_bytes(whole[:-10])
    with pytest.raises(DataError, match=f"{name} is truncated or was altered"):
        open_shards(shards)
    (shards / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        open_shards(shards)


def test_a_damaged_or_missing_index_is_named(shards: Path, tmp_path: Path) -> None:
    (shards / "shards.json").write_text("{")
    with pytest.raises(DataError, match=r"shards\.json is damaged"):
        open_shards(shards)
    with pytest.raises(DataError, match="dvc repro prepare"):
        open_shards(tmp_path / "nowhere")


def test_digest_changes_with_any_byte(shards: Path) -> None:
    before = open_shards(shards).digest
    flip(shards / "train_images.npy")
    index = json.loads((shards / "shards.json").read_text())
    index["sha256"]["train_images.npy"] = sha256(shards / "train_images.npy")
    write_json(shards / "shards.json", index)
    assert open_shards(shards).digest != before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_changed_since_ingest_is_refused(
    splits: pd.DataFrame, digits_folder: Path, shards: Path, tmp_path: Path, workers: int
) -> None:
    root = Path(shutil.copytree(digits_folder, tmp_path / "raw"))
    before = open_shards(shards).digest
    victim, other = (path.removeprefix("digits/") for path in splits["path"].iloc[:2])
    shutil.copy(root / other, root / victim)
    with pytest.raises(DataError, match=f"{victim} has changed since"):
        prepare(splits, {"digits": root}, CONTRACT, shards, workers)
    (root / victim).unlink()
    with pytest.raises(DataError, match=f"{victim} could be read when"):
        prepare(splits, {"digits": root}, CONTRACT, shards, workers)
    assert open_shards(shards).digest == before
    assert [path.name for path in shards.parent.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_old_shards(
    splits: pd.DataFrame, digits_folder: Path, shards: Path, tmp_path: Path
) -> None:
    """The size limit of files makes the kernel refuse the write, as a full disk does."""
    before = open_shards(shards).digest
    splits.to_parquet(tmp_path / "splits.parquet")
    program = (
        "import resource, sys, pandas as pd; from pathlib import Path;"
        "from tasks.bundle import InputContract; from tasks.data.prepare import prepare;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000));"
        "prepare(pd.read_parquet(sys.argv[1]), {'digits': Path(sys.argv[2])},"
        f" InputContract(**{CONTRACT.model_dump()}), Path(sys.argv[3]))"
    )
    arguments = [tmp_path / "splits.parquet", digits_folder, shards]
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert run.returncode != 0
    assert "OSError: [Errno 27]" in run.stderr
    assert open_shards(shards).digest == before
    assert [path.name for path in shards.parent.iterdir() if path.name.startswith(".")] == []
