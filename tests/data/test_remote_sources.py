"""Images from object stores and from torchvision are brought to this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.data.sources.locate import find, local_folder
from tasks.errors import DataError
from tasks.params import load_params
from tasks.pixels import read
from tasks.schema import FolderSource, TorchvisionSource

LIMITS = load_params(Path(__file__).parents[2] / "conf/params.yaml").ingest


@pytest.fixture
def bucket(images: Path) -> Iterator[str]:
    """The images in fsspec's own store in memory, which speaks as an object store does."""
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(images), "/photos/set", recursive=True)
    yield "memory://photos/set"
    store.rm("/photos", recursive=True)


def test_a_bucket_is_mirrored_and_only_changes_are_fetched(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import fsspec

    source, home = FolderSource(path=bucket, layout="folders"), tmp_path / "home"
    caplog.set_level("INFO")
    folder = local_folder(source, LIMITS, home)
    assert len(find(source, folder)) == 4
    assert "4 objects, 4 new or changed" in caplog.text
    store = fsspec.filesystem("memory")
    store.rm("/photos/set/cat/0.png")
    store.pipe("/photos/set/dog/1.png", b"changed")
    store.pipe("/photos/set/dog/2.png", b"new")
    caplog.clear()
    assert local_folder(source, LIMITS, home) == folder
    assert "4 objects, 2 new or changed" in caplog.text
    assert (folder / "dog/1.png").read_bytes() == b"changed"
    assert not (folder / "cat/0.png").exists()


def test_an_interrupted_mirror_goes_on(bucket: str, tmp_path: Path) -> None:
    source, home = FolderSource(path=bucket, layout="folders"), tmp_path / "home"
    folder = local_folder(source, LIMITS, home)
    whole = (folder / "cat/0.png").read_bytes()
    index = json.loads((folder / ".index.json").read_text())
    del index["cat/0.png"]  # as when it was being fetched
    (folder / ".index.json").write_text(json.dumps(index))
    (folder / "cat/0.png").write_bytes(whole[:50])
    (folder / "cat/1.png").unlink()
    local_folder(source, LIMITS, home)
    assert (folder / "cat/0.png").read_bytes() == whole
    assert (folder / "cat/1.png").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nowhere/at/all", "holds no object"),
        ("nonsense://bucket/x", "cannot be read: ValueError: Protocol not known"),
        ("http://127.0.0.1:9/x", "holds no object|cannot be read"),
    ],
)
def test_a_bucket_that_cannot_be_read_is_named(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        local_folder(FolderSource(path=url, layout="folders"), LIMITS, tmp_path)
    assert url in str(caught.value)


def idx(path: Path, values: np.ndarray) -> None:
    """A file in MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def test_a_torchvision_set_on_disk_is_written_out_with_its_test_split(
    tmp_path: Path, digit_images: np.ndarray, digit_labels: np.ndarray
) -> None:
    raw = tmp_path / "root/MNIST/raw"
    for name, part in (("train", slice(0, 60)), ("t10k", slice(60, 80))):
        idx(raw / f"{name}-images-idx3-ubyte", digit_images[part, :, :, 0])
        idx(raw / f"{name}-labels-idx1-ubyte", digit_labels[part])
    source = TorchvisionSource(path=str(tmp_path / "root"), layout="torchvision", dataset="MNIST")
    folder = local_folder(source, LIMITS, tmp_path / "home")
    found = find(source, folder)
    assert [one.split for one in found].count("test") == 20
    first = next(one for one in found if one.path.endswith("000000.png") and one.split == "train")
    np.testing.assert_array_equal(read(Path(first.file), 10**6), digit_images[0])
    assert str(first.label).startswith(str(digit_labels[0]))


def test_a_torchvision_set_that_cannot_be_fetched_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    source = TorchvisionSource(path=str(tmp_path / "root"), layout="torchvision", dataset="USPS")
    with pytest.raises(DataError, match="Without a network, put the files"):
        local_folder(source, LIMITS, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home/sources").iterdir()] == [".lock"]
