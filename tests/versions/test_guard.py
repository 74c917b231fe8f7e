"""A run stops on data that are not those of dvc.lock, and only then."""

import re
import shutil
from collections.abc import Callable

import pytest
from dvc.repo import Repo

from tasks.errors import DataError
from tasks.params import load_params
from tasks.pipeline import changed_stages
from tasks.workspace import Workspace


@pytest.fixture
def changed(project) -> Callable[..., list[str]]:
    """The stages that the next run would look at, or its refusal."""
    workspace = Workspace(project.root, load_params(project.root / "conf/params.yaml"))
    return lambda: changed_stages(workspace, "count")


def replace(file, content=b"another table") -> None:
    file.unlink()  # not in place: that would write to the cache object it is linked to
    file.write_bytes(content)


def test_data_as_locked_stop_nothing(project, changed):
    assert changed() == []
    shutil.rmtree(project.root / "data/counts")
    (project.root / "data/splits.parquet").unlink()
    assert changed() == ["count", "split"]


def test_an_edited_output_stops_the_run_with_both_hashes(project, changed):
    file = project.root / "data/splits.parquet"
    digest = project.stored("data/splits.parquet")
    replace(file)
    with pytest.raises(DataError) as caught:
        changed()
    message = str(caught.value)
    assert re.search(r"data/splits\.parquet: has md5 [0-9a-f]{32}, dvc\.lock names", message)
    assert f"{digest.parent.name}{digest.name} (stage split)" in message
    assert "`visionloop data verify --repair`" in message
    assert "`dvc commit split`" in message
    assert file.read_bytes() == b"another table"


def test_an_edit_that_was_committed_is_kept(project, changed):
    replace(project.root / "data/splits.parquet")
    with Repo(str(project.root)) as repository:
        repository.commit("split", force=True)
    assert changed() == ["count"]


def test_a_file_in_a_folder_is_named(project, changed):
    replace(project.root / "data/counts/bytes")
    (project.root / "data/counts/extra").touch()
    with pytest.raises(DataError) as caught:
        changed()
    assert "data/counts/bytes: has md5" in str(caught.value)
    assert "data/counts/extra: does not belong in data/counts" in str(caught.value)
    assert "data/counts/now" not in str(caught.value)


@pytest.mark.parametrize("checked_out", [True, False])
def test_damage_that_dvc_does_not_see_stops_the_run(project, changed, damage, checked_out):
    """Mode, size and time say that nothing happened; and then, that the object is sound."""
    damage(project.stored("data/splits.parquet"))
    if checked_out:
        (project.root / "data/splits.parquet").unlink()
        with Repo(str(project.root)) as repository:
            repository.checkout("data/splits.parquet", force=True)
            assert repository.status() == {}
    else:
        (project.root / "data/splits.parquet").unlink()
    with pytest.raises(DataError, match=r"data/splits\.parquet.* has md5"):
        changed()


def test_what_runs_again_anyway_may_be_edited(project, changed):
    replace(project.root / "data/splits.parquet")
    replace(project.root / "given/splits.parquet", b"other splits")
    assert changed() == ["count", "split"]
    project.repro()
    assert (project.root / "data/splits.parquet").read_bytes() == b"other splits"
    assert changed() == []


def test_an_edit_below_a_stage_that_runs_is_replaced(project, changed):
    replace(project.root / "data/counts/bytes")
    replace(project.root / "given/splits.parquet", b"other splits")
    assert "count" in changed()


def test_damage_below_a_stage_that_runs_stops_the_run(project, changed, damage):
    """Should the upper stage give the same again, the lower would be taken as it is."""
    damage(project.root / "data/splits.parquet")
    replace(project.root / "given/cleaned.parquet", b"other rows")
    with pytest.raises(DataError, match=r"data/splits\.parquet"):
        changed()


def test_a_sound_file_with_a_damaged_object_is_used(project, changed, damage):
    file = project.root / "data/splits.parquet"
    content = file.read_bytes()
    replace(file, content)
    assert changed() == []
    damage(project.stored("data/splits.parquet"))
    assert changed() == []


def test_the_workspace_of_an_override_is_looked_at_from_the_repository(
    project, changed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert changed() == []
    replace(project.root / "data/splits.parquet")
    with pytest.raises(DataError) as caught:
        changed()
    assert "data/splits.parquet: has md5" in str(caught.value)
    assert f"{project.root} is the workspace of an override: remove it" in str(caught.value)
    replace(project.root / "given/splits.parquet", b"other splits")
    assert len(changed()) == 2
