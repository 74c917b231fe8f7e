"""Archives are unpacked once, and only what is safe of them."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.data.sources.locate import find, local_folder
from tasks.errors import DataError
from tasks.params import load_params
from tasks.schema import FolderSource, Ingest

LIMITS = load_params(Path(__file__).parents[2] / "conf/params.yaml").ingest


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"wrapped/{file.relative_to(folder)}")
    return target


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "wrapped")
    return target


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_unpacked_once_and_again_when_it_changes(
    images: Path, tmp_path: Path, pack: Callable[[Path, Path], Path]
) -> None:
    name = "set.zip" if pack is zipped else "set.tar.gz"
    archive = pack(images, tmp_path / name)
    source = FolderSource(path=str(archive), layout="folders")
    folder = local_folder(source, LIMITS, tmp_path / "home")
    assert [one.path for one in find(source, folder)] == [
        "cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png",
    ]  # fmt: skip
    stamp = (folder / "cat/0.png").stat().st_ino
    assert local_folder(source, LIMITS, tmp_path / "home") == folder
    assert (folder / "cat/0.png").stat().st_ino == stamp
    (images / "dog/1.png").unlink()
    archive.unlink()
    pack(images, archive)
    assert len(find(source, local_folder(source, LIMITS, tmp_path / "home"))) == 3


def limits(**changes: object) -> Ingest:
    return LIMITS.model_copy(update=changes)


def refused(archive: Path, home: Path, allowed: Ingest = LIMITS) -> str:
    source = FolderSource(path=str(archive), layout="folders")
    with pytest.raises(DataError) as caught:
        local_folder(source, allowed, home)
    assert not home.exists() or list(home.rglob("*.png")) == []
    return str(caught.value)


def test_an_archive_that_is_not_safe_is_refused(images: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        archive.write(images / "cat/0.png", "cat/0.png")
        archive.write(images / "cat/0.png", "../../outside.png")
    assert "'../../outside.png' leads out of it" in refused(tmp_path / "up.zip", home)
    with tarfile.open(tmp_path / "root.tar", "w") as opened:
        opened.add(images / "cat/0.png", "x")
        opened.getmembers()[0].name = "x"
        info = opened.gettarinfo(images / "cat/0.png", "/etc/outside.png")
        info.name = "/etc/outside.png"
        with open(images / "cat/0.png", "rb") as stream:
            opened.addfile(info, stream)
    assert "leads out of it" in refused(tmp_path / "root.tar", home)
    assert "more than 3 files" in refused(
        zipped(images, tmp_path / "many.zip"), home, limits(max_archive_files=3)
    )
    assert "1e-05 GB" in refused(tmp_path / "many.zip", home, limits(max_archive_gb=1e-5))


def test_links_in_an_archive_are_passed_over(images: Path, tmp_path: Path) -> None:
    (images / "cat/link.png").symlink_to("/etc/passwd")
    (images / "dog/up").symlink_to("../..")
    archive = tarred(images, tmp_path / "links.tar.gz")
    source = FolderSource(path=str(archive), layout="folders")
    found = find(source, local_folder(source, LIMITS, tmp_path / "home"))
    assert len(found) == 4


@pytest.mark.parametrize("cut", [0, 30, 0.5, 0.9])
def test_a_damaged_archive_is_named_and_leaves_nothing(
    images: Path, tmp_path: Path, cut: float
) -> None:
    for archive in (zipped(images, tmp_path / "a.zip"), tarred(images, tmp_path / "a.tar.gz")):
        data = archive.read_bytes()
        archive.write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
        assert f"{archive} cannot be unpacked" in refused(archive, tmp_path / "home")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.zip", tmp_path / "home")
