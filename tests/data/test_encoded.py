"""Encoded shards: the same pixels in the same order, whoever reads them; damage is named."""

import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from tasks.bundle import InputContract
from tasks.data.encoded import EncodedImages, encode, write_encoded
from tasks.data.prepare import Packing, choose_packing, contract_of, prepare
from tasks.data.shards import SPLITS, Shards, open_shards
from tasks.data.split import assign
from tasks.errors import DataError
from tasks.params import load_params
from tasks.schema import Split

NO_PAIRS = pd.DataFrame({"left": [], "right": []})
CONTRACT = InputContract(size=16, resize="stretch", max_pixels=50_000_000)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def splits(digits_cleaned: pd.DataFrame) -> pd.DataFrame:
    return assign(digits_cleaned, NO_PAIRS, Split(validation=0.15, test=0.2, seed=0, folds=None))


@pytest.fixture(scope="module")
def both(
    splits: pd.DataFrame, digits_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Shards, Shards]:
    """The digits packed raw and packed encoded."""
    folder = tmp_path_factory.mktemp("both")
    prepare(splits, {"digits": digits_folder}, CONTRACT, folder / "raw", 1, Packing(raw=True))
    prepare(splits, {"digits": digits_folder}, CONTRACT, folder / "encoded", 1, Packing(raw=False))
    return open_shards(folder / "raw"), open_shards(folder / "encoded")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """40 crops of real photographs, large enough to be decoded by several threads."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    return np.stack([photos[n % 2][3 * n : 3 * n + 72, 9 * n : 9 * n + 72] for n in range(40)])


@pytest.fixture
def written(crops: np.ndarray, tmp_path: Path) -> EncodedImages:
    """The crops in several files."""
    encoded = [encode(image, None) for image in crops]
    parts = [encoded[at : at + 7] for at in range(0, 40, 7)]
    write_encoded(tmp_path, "train", parts, shard_bytes=100_000)
    files = sorted(tmp_path.glob("train_images-*.arrow"))
    assert len(files) > 2, [file.stat().st_size for file in files]
    return EncodedImages(files, 40, 72)


def test_both_forms_hold_the_same(both: tuple[Shards, Shards]) -> None:
    raw, encoded = both
    assert encoded.contract == raw.contract
    assert not list(encoded.path.glob("*_images.npy"))
    for name in SPLITS:
        one, other = raw.split(name), encoded.split(name)
        assert isinstance(other.images, EncodedImages)
        assert other.images.shape == one.images.shape
        np.testing.assert_array_equal(other.images[:], one.images[:])
        assert other.paths == one.paths
        for field in ("labels", "statistics", "hashes"):
            np.testing.assert_array_equal(getattr(other, field), getattr(one, field))


@pytest.mark.parametrize(
    "key",
    [
        0, 39, -1, -40, np.int64(13), slice(None), slice(3, 30, 4), slice(None, None, -1),
        slice(35, 99), slice(5, 5), [5], [7, 7, 0, 39, -2], np.arange(39, -1, -3),
        np.arange(40) % 3 == 0, np.array([], np.int64), [],
    ],
    ids=str,
)  # fmt: skip
def test_it_is_indexed_as_an_array_is(written: EncodedImages, crops: np.ndarray, key: Any) -> None:
    expected = crops[np.array(key, np.int64) if isinstance(key, list) else key]
    found = written[key]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("key", [40, -41, [0, 40], np.array([-41])])
def test_an_index_beyond_the_end_is_refused(written: EncodedImages, key: Any) -> None:
    with pytest.raises(IndexError, match="out of bounds for 40 images"):
        written[key]
    with pytest.raises((IndexError, TypeError)):
        written[np.array([0.5])]


def test_any_arrow_reader_opens_the_files(written: EncodedImages, crops: np.ndarray) -> None:
    import io

    tables = [pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in written.files]
    rows = pa.concat_tables(tables)["image"].to_pylist()
    assert len(rows) == 40
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rows[23]))), crops[23])


def read_some(pickled: bytes, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images: EncodedImages = pickle.loads(pickled)
    indices = np.random.default_rng(seed).integers(0, len(images), 60)
    return indices, images[indices]


def test_several_processes_and_threads_read_at_once(
    written: EncodedImages, crops: np.ndarray
) -> None:
    pickled = pickle.dumps(written)
    assert len(pickled) < 10_000  # the files' names, not the images
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, context) as processes, ThreadPoolExecutor(4) as threads:
        jobs = [processes.submit(read_some, pickled, seed) for seed in range(6)]
        jobs += [threads.submit(read_some, pickled, seed) for seed in range(6, 12)]
        shared = [threads.submit(written.__getitem__, slice(None)) for _ in range(8)]
        for job in jobs:
            indices, images = job.result()
            np.testing.assert_array_equal(images, crops[indices])
        for job in shared:
            np.testing.assert_array_equal(job.result(), crops)


@pytest.mark.parametrize("split", SPLITS)
def test_a_damaged_or_missing_shard_is_named(
    both: tuple[Shards, Shards], split: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(both[1].path, tmp_path / "shards"))
    file = folder / f"{split}_images-00000.arrow"
    whole = file.read_bytes()
    middle = len(whole) // 2
    altered = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (altered, whole[:-1], whole[: len(whole) // 3], b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{file.name} is truncated or was altered"):
            open_shards(folder)
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name} cannot be read"):
        open_shards(folder)


def test_jpeg_is_for_training_images_alone(
    both: tuple[Shards, Shards], splits: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    packing = Packing(raw=False, train_jpeg_quality=95)
    prepare(splits, {"digits": digits_folder}, CONTRACT, tmp_path / "jpeg", 1, packing)
    jpeg = open_shards(tmp_path / "jpeg")
    for name in ("validation", "test"):
        file = f"{name}_images-00000.arrow"
        assert (jpeg.path / file).read_bytes() == (both[1].path / file).read_bytes()
    exact, lossy = both[0].split("train").images[:], jpeg.split("train").images[:]
    difference = np.abs(exact.astype(int) - lossy)
    assert 0 < difference.mean() < 3


def test_the_form_follows_from_size_and_count_alone(splits: pd.DataFrame) -> None:
    params = load_params(ROOT / "conf/params.yaml", {"prepare.resize": "crop"})
    train = int((splits["split"] == "train").sum())
    for margin in (0, 4):
        config = params.prepare.model_copy(update={"margin": margin})
        contract = contract_of(params.model_copy(update={"prepare": config}))
        assert (contract.margin, contract.size) == (margin, params.prepare.size)
        size = 3 * (train * (16 + margin) ** 2 + (len(splits) - train) * 16**2) / 1e9
        for limit, raw in ((size, True), (size * 0.9999, False), (0.0, False)):
            limited = config.model_copy(update={"max_raw_gb": limit})
            assert choose_packing(splits, contract, limited).raw is raw


def test_several_processes_give_the_same_bytes(
    both: tuple[Shards, Shards], splits: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    prepare(splits, {"digits": digits_folder}, CONTRACT, tmp_path / "again", 2, Packing(raw=False))
    assert open_shards(tmp_path / "again").digest == both[1].digest


def test_a_full_disk_leaves_the_old_shards(
    both: tuple[Shards, Shards], splits: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    """The size limit of files makes the kernel refuse the write, as a full disk does."""
    folder = Path(shutil.copytree(both[1].path, tmp_path / "shards"))
    splits.to_parquet(tmp_path / "splits.parquet")
    program = (
        "import resource, sys, pandas as pd; from pathlib import Path;"
        "from tasks.bundle import InputContract; from tasks.data.prepare import Packing, prepare;"
        "table = pd.read_parquet(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        f"prepare(table, {{'digits': Path(sys.argv[2])}}, InputContract(**{CONTRACT.model_dump()}),"
        " Path(sys.argv[3]), 1, Packing(raw=False))"
    )
    arguments = [tmp_path / "splits.parquet", digits_folder, folder]
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "OSError: [Errno 27]" in run.stderr
    assert open_shards(folder).digest == both[1].digest
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
