"""Damaged objects are found, fetched again and checked out; what is lost is named."""

import shutil
import subprocess
import sys

import pytest
from dvc.repo import Repo

from tasks.errors import PipelineError
from tasks.versions.locked import Finding
from tasks.versions.repair import Repaired, repair, verify

ONE = {("cache", "data/photographs/one"), ("cache", "data/photographs/copy of one")}


def found_in(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(one.place, one.path) for one in findings}


def whole(result: Repaired, root) -> bool:
    return result.remaining == [] == verify(root)


def status(root) -> dict:
    with Repo(str(root)) as repository:
        return repository.status()


@pytest.fixture
def photographs(project):
    """Files that `dvc add` tracks, two of the same content, pushed."""
    folder = project.root / "data/photographs"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_text(f"the pixels of {name}")
    (folder / "copy of one").write_text("the pixels of one")
    with Repo(str(project.root)) as repository:
        repository.add("data/photographs")
    project.push()
    return folder


def test_sound_data_have_no_findings(project):
    hashed = []
    assert verify(project.root, hashed=lambda done, total: hashed.append((done, total))) == []
    assert hashed[-1] == (4, 4)


@pytest.mark.parametrize("path", ["data/splits.parquet", "data/counts/now", "data/counts"])
def test_a_damaged_object_is_named_and_fetched_again(project, damage, path):
    before = {file: file.read_bytes() for file in (project.root / "data").rglob("*[a-z]")
              if file.is_file()}  # fmt: skip
    damage(project.stored(path))
    (finding,) = [one for one in verify(project.root) if one.place == "cache"]
    assert (finding.path, finding.stage) == (path, "count" if "counts" in path else "split")
    assert finding.actual not in (None, finding.expected)
    result = repair(project.root, absent=False)
    assert finding in result.found
    assert whole(result, project.root)
    assert {file: file.read_bytes() for file in before} == before
    assert status(project.root) == {}
    assert not list((project.root / ".dvc/cache").rglob("*.damaged"))


def test_a_list_of_files_and_a_file_of_it_are_both_mended(project, damage):
    damage(project.stored("data/counts/now"))
    damage(project.stored("data/counts"))
    result = repair(project.root, absent=False)
    assert {one.path for one in result.found} == {"data/counts", "data/counts/now"}
    assert whole(result, project.root)


def test_edited_outputs_are_replaced(project):
    edited = project.root / "data/splits.parquet"
    edited.unlink()
    edited.write_text("mine")
    (project.root / "data/counts/extra").touch()
    result = repair(project.root, absent=False)
    assert found_in(result.found) == {
        ("workspace", "data/splits.parquet"),
        ("workspace", "data/counts/extra"),
    }
    assert whole(result, project.root)
    assert not (project.root / "data/counts/extra").exists()


def test_what_the_remote_has_not_is_named_with_its_stage(project, damage):
    shutil.rmtree(project.root.parent / "remote")
    damage(project.stored("data/splits.parquet"))
    result = repair(project.root, absent=False)
    assert ("cache", "data/splits.parquet") in found_in(result.remaining)
    way_out = result.remaining[0].way_out
    assert "`dvc repro --force --single-item split`" in way_out
    command = ["-m", "dvc", *way_out.split("`")[1].split()[1:]]
    subprocess.run([sys.executable, *command], cwd=project.root, check=True)
    assert verify(project.root) == []


def test_a_damaged_remote_does_not_get_into_the_cache(project, damage):
    """Without `verify` in its configuration DVC takes what the remote gives."""
    config = project.root / ".dvc/config"
    config.write_text(config.read_text().replace("verify = true", "verify = false"))
    file = project.stored("data/splits.parquet")
    for store in (project.root / ".dvc/cache", project.root.parent / "remote"):
        damage(store / file.relative_to(project.root / ".dvc/cache"))
    result = repair(project.root, absent=False)
    assert ("cache", "data/splits.parquet") in found_in(result.remaining)
    assert not file.exists()


def test_an_image_folder_keeps_what_dvc_has_not_seen(project, photographs, damage):
    damage(project.stored("data/photographs/one"))
    (photographs / "three").write_text("new")
    (photographs / "two").unlink()
    result = repair(project.root, absent=False)
    assert found_in(result.found) == ONE
    assert whole(result, project.root)
    assert (photographs / "one").read_text() == "the pixels of one"
    assert (photographs / "copy of one").read_text() == "the pixels of one"
    assert (photographs / "three").read_text() == "new"
    assert not (photographs / "two").exists()


def test_the_only_copy_of_an_image_is_not_thrown_away(project, photographs, damage):
    shutil.rmtree(project.root.parent / "remote")
    stored = project.stored("data/photographs/one")
    damage(stored)
    result = repair(project.root, absent=False)
    assert found_in(result.remaining) == ONE
    assert "dvc add data/photographs" in result.remaining[0].way_out
    assert stored.exists()
    assert (photographs / "one").exists()


def test_an_empty_clone_is_filled(project, photographs):
    content = {file: file.read_bytes() for file in photographs.iterdir()}
    digest = (project.root / "data/splits.parquet").read_bytes()
    for folder in ("data/counts", "data/photographs", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project.root / folder)
    for file in (project.root / "data").glob("*.parquet"):
        file.unlink()
    result = repair(project.root, absent=True)
    assert whole(result, project.root)
    assert {file: file.read_bytes() for file in photographs.iterdir()} == content
    assert (project.root / "data/splits.parquet").read_bytes() == digest
    assert status(project.root) == {}


def test_a_pull_does_not_overwrite_an_edit(project):
    edited = project.root / "data/splits.parquet"
    edited.unlink()
    edited.write_text("mine")
    with pytest.raises(PipelineError, match=r"data/splits\.parquet"):
        repair(project.root, absent=True)
    assert edited.read_text() == "mine"


def test_a_pull_after_a_checkout_of_git_replaces_the_old_version(project):
    old = (project.root / "data/splits.parquet").read_bytes()
    (project.root / "given/splits.parquet").write_text("other splits")
    project.repro()
    project.push()
    project.commit("v2")
    subprocess.run(["git", "checkout", "-q", "v1"], cwd=project.root, check=True)
    result = repair(project.root, absent=True)
    assert whole(result, project.root)
    assert (project.root / "data/splits.parquet").read_bytes() == old
