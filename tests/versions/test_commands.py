"""`visionloop data diff`, `verify` and `pull` as a user calls them."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from flows.cli import app


@pytest.fixture
def data(project):
    """Runs `visionloop data …` in this process."""
    return lambda *words: CliRunner().invoke(app, ["data", *words])


@pytest.fixture
def other_splits(project, tables):
    """The working tree with ten images fewer and one in another split."""
    cleaned, splits = tables[0][10:], tables[1][10:].copy()
    row = splits.index[splits["split"] == "train"][0]
    splits.loc[row, "split"] = "validation"
    cleaned.to_parquet(project.root / "given/cleaned.parquet")
    splits.to_parquet(project.root / "given/splits.parquet")
    project.repro()
    return splits.loc[row]


def test_diff_against_the_working_tree(data, other_splits):
    result = data("diff", "v1", "--json")
    found = json.loads(result.stdout)
    assert found["counts"]["removed"] == 10
    assert found["moves"] == [{"from": "train", "to": "validation", "images": 1}]
    (moved,) = [one for one in found["images"] if "moved" in one["kinds"]]
    assert moved["pixel_hash"] == other_splits["pixel_hash"]
    assert (found["before"]["images"], found["after"]["images"]) == (1797, 1787)


def test_diff_as_a_table(data, other_splits):
    result = data("diff", "v1")
    assert result.exit_code == 0
    lines = {line.split("  ")[0]: line.split() for line in result.stdout.splitlines()}
    assert lines["distinct images"][-2:] == ["1,797", "1,787"]
    assert lines["removed"][1] == "10"
    assert "train → validation 1" in result.stdout
    assert other_splits["path"] in result.stdout


def test_diff_between_two_commits_reads_nothing_of_the_working_tree(project, data, other_splits):
    project.commit("v2")
    shutil.rmtree(project.root / "data")
    found = json.loads(data("diff", "v2", "v1", "--json").stdout)
    assert found["counts"]["added"] == 10
    assert data("diff", "v1", "v1").stdout.endswith("the same images, labels and splits\n")


def test_diff_as_a_page(project, data, other_splits, tmp_path, monkeypatch):
    monkeypatch.chdir(project.root / "conf")
    result = data("diff", "v1", "--html", "../difference.html")
    assert result.exit_code == 0
    page = (project.root / "difference.html").read_text()
    assert page.count("<img") == 11  # ten removed, one moved
    assert page.count("(16×16 copy of the manifest)") == 11  # the images themselves are not here


@pytest.mark.parametrize("words", [("nope",), ("v1", "nope")])
def test_a_wrong_revision_is_one_line(data, words):
    result = data("diff", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 'nope' is no git revision here")
    assert result.stderr.count("\n") == 1


def test_verify_and_repair(project, data, damage):
    assert data("verify").exit_code == 0
    damage(project.stored("data/splits.parquet"))
    looked = data("verify")
    assert looked.exit_code == 1
    assert "data/splits.parquet" in looked.stdout
    assert "visionloop data verify --repair" in looked.stdout
    found = json.loads(data("verify", "--json").stdout)
    assert not found["ok"]
    assert {one["path"] for one in found["found"]} == {"data/splits.parquet"}
    assert data("verify", "--repair").exit_code == 0
    assert json.loads(data("verify", "--json").stdout) == {
        "ok": True, "found": [], "remaining": [], "reason": None,
    }  # fmt: skip


def test_what_cannot_be_repaired_says_what_to_run(project, data, damage):
    shutil.rmtree(project.root.parent / "remote")
    damage(project.stored("data/splits.parquet"))
    result = data("verify", "--repair")
    assert result.exit_code == 1
    assert "dvc repro --force --single-item split" in result.stdout.replace("\n", " ")


def test_pull_into_an_empty_cache(project, data):
    shutil.rmtree(project.root / ".dvc/cache")
    shutil.rmtree(project.root / "data/counts")
    looked = data("verify")
    assert looked.exit_code == 0
    assert "visionloop data pull" in looked.stdout
    assert data("pull", "--jobs", "2").exit_code == 0
    assert (project.root / "data/counts/now").exists()
    assert "data pull" not in data("verify").stdout
