"""`visionloop report` and `visionloop compare`: what they say, where the pages are, mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from frozen_shards import write_frozen

from tasks.bundle import REPORT, Bundle
from tasks.params import Settings
from tasks.registry.champion_report import folder_of
from tasks.releases import publish


@pytest.fixture
def workspace(repository: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose state directory has the key that the bundles are signed with."""
    monkeypatch.setenv("VISIONLOOP_HOME", str(settings.home))
    return repository


@pytest.fixture
def pair(
    make_bundle, workspace: Path, settings: Settings, digit_images: np.ndarray, digit_labels
) -> tuple[Bundle, Bundle]:
    """A champion in production and a better model, with the frozen images to compare them on."""
    old, new = make_bundle(1e-4, "old"), make_bundle(0.1, "new")
    publish(old, 3, settings)
    write_frozen(workspace, new, digit_images[1200:], digit_labels[1200:])
    return old, new


def test_report_says_the_verdict_and_where_the_page_is(visionloop, workspace, digits_bundle):
    (workspace / "data").mkdir()
    digits_bundle.path.rename(workspace / "data/bundle")
    done = visionloop("report")
    assert done.exit_code == 0
    assert f"{digits_bundle.info.measurements.accuracy:.1%} of the test images right" in done.output
    assert (workspace / "data/bundle" / REPORT).as_uri() in done.output.replace("\n", "")
    found = json.loads(visionloop("report", "--json").output)
    assert found["digest"] == digits_bundle.digest
    assert Path(found["report"]).is_file()


def test_report_opens_the_copy_that_the_gate_filled(
    visionloop, workspace, digits_bundle, settings, monkeypatch
):
    filled = folder_of(digits_bundle, settings) / "report-champion-v3.html"
    filled.parent.mkdir(parents=True)
    filled.write_text("<title>with the champion</title>")
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    done = visionloop("report", str(digits_bundle.path), "--open")
    assert opened == [filled.as_uri()]
    said = done.output.replace("\n", "")
    assert f"report: {filled.as_uri()}" in said
    signed = digits_bundle.path / REPORT
    assert f"as signed, without the champion: {signed.as_uri()}" in said
    found = json.loads(visionloop("report", str(digits_bundle.path), "--json").output)
    assert (found["report"], found["signed_report"]) == (str(filled), str(signed))
    assert found["comparisons"] == []


def test_a_folder_is_found_from_where_the_command_was_typed(
    visionloop, workspace, digits_bundle, monkeypatch
):
    (workspace / "deep").mkdir()
    monkeypatch.chdir(workspace / "deep")
    relative = Path("../..") / digits_bundle.path.relative_to(workspace.parent)
    assert visionloop("report", str(relative)).exit_code == 0


def test_open_without_a_browser_says_the_path(visionloop, workspace, digits_bundle, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)  # as where there is none
    done = visionloop("report", str(digits_bundle.path), "--open")
    assert done.exit_code == 0
    assert f"no browser here; the page is {digits_bundle.path / REPORT}" in done.stderr
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    visionloop("report", str(digits_bundle.path), "--open", "--json")
    assert opened == [(digits_bundle.path / REPORT).as_uri()]


def test_mistakes_are_named_without_a_traceback(visionloop, workspace, digits_bundle):
    for words, expected in (
        (["report"], "no bundle at data/bundle; `dvc repro` builds one"),
        (["report", "nowhere"], "'nowhere' is no folder with a bundle, no version"),
        (["report", str(workspace)], "SHA256SUMS"),
    ):
        done = visionloop(*words)
        assert done.exit_code == 2, done.output
        assert expected in done.stderr, done.stderr
    (digits_bundle.path / REPORT).write_text("<title>altered</title>")
    assert "report.html" in visionloop("report", str(digits_bundle.path)).stderr


def test_compare_shows_what_changes_and_leaves_a_page(visionloop, workspace, pair, tmp_path):
    old, new = pair
    page = tmp_path / "page.html"
    done = visionloop("compare", "champion", str(new.path), "--html", str(page))
    assert done.exit_code == 0, done.stderr
    assert "images come right" in done.output
    assert page.as_uri() in done.output
    assert "<title>champion and " in page.read_text()
    found = json.loads(visionloop("compare", "3", str(new.path), "--json").output)
    assert found["a"] == {"title": "version 3", "bundle": old.digest}
    assert found["accuracy"][1] - found["accuracy"][0] == pytest.approx(found["difference"][0])
    assert len(found["fixed"]) > len(found["broken"])
    assert found["fixed"][0]["path"].startswith(f"digits/{found['fixed'][0]['label']}/")
    report = json.loads(visionloop("report", str(new.path), "--json").output)
    assert report["comparisons"] == [found["page"]]


def test_the_same_bundle_twice_is_no_comparison(visionloop, workspace, pair):
    done = visionloop("compare", "champion", "3")
    assert done.exit_code == 2
    assert "champion and version 3 are the same bundle" in done.stderr


def test_without_images_it_says_what_lacks_and_compares_the_answers(
    visionloop, workspace, make_bundle
):
    a, b = make_bundle(0.1, "a"), make_bundle(0.001, "b")
    done = visionloop("compare", str(a.path), str(b.path))
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert "no shards at data/shards; run `dvc repro prepare`" in said
    assert "Compared is what the bundles carry of the same test images" in said
