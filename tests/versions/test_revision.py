"""The tables of a revision come from cache or remote, sound, or there is a clear error."""

import shutil

import pytest

from tasks.errors import DataError
from tasks.versions.revision import read_revision


def empty_cache(project) -> None:
    shutil.rmtree(project.root / ".dvc/cache")


def test_a_revision_keeps_its_tables(project, tables):
    other = tables[1].assign(split="train")
    other.to_parquet(project.root / "given/splits.parquet")
    project.repro()
    first, now = read_revision(project.root, "v1"), read_revision(project.root, None)
    assert first.splits.equals(tables[1])
    assert first.cleaned.equals(tables[0])
    assert now.splits.equals(other)
    assert (first.name, now.name, now.commit) == ("v1", "working tree", None)
    assert len(first.commit) == 40


def test_the_remote_has_what_the_cache_has_not(project, tables):
    empty_cache(project)
    assert read_revision(project.root, "v1").splits.equals(tables[1])


def test_tables_that_are_nowhere_are_named(project):
    empty_cache(project)
    shutil.rmtree(project.root.parent / "remote")
    with pytest.raises(DataError) as caught:
        read_revision(project.root, "v1")
    assert "data/cleaned.parquet of revision 'v1'" in str(caught.value)
    assert "`dvc fetch --all-commits`" in str(caught.value)


def test_a_damaged_table_is_not_read(project, damage):
    damage(project.stored("data/cleaned.parquet"))
    with pytest.raises(DataError, match=r"data/cleaned\.parquet of revision 'v1' is damaged"):
        read_revision(project.root, "v1")


def test_an_unknown_revision_is_named(project):
    with pytest.raises(DataError, match="'v9' is no git revision here"):
        read_revision(project.root, "v9")


def test_a_revision_without_a_run_is_named(project):
    (project.root / "dvc.lock").unlink()
    project.commit("empty")
    with pytest.raises(DataError, match=r"'empty' has no data/cleaned\.parquet in its dvc\.lock"):
        read_revision(project.root, "empty")


def test_without_git_there_are_no_revisions(project):
    shutil.rmtree(project.root / ".git")
    with pytest.raises(DataError, match="is not a git repository"):
        read_revision(project.root, "v1")


def test_a_working_tree_without_tables_names_the_stage(project):
    (project.root / "data/cleaned.parquet").unlink()
    with pytest.raises(DataError, match="run `dvc repro clean`"):
        read_revision(project.root, None)
