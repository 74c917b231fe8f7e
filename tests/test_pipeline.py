"""Milestones of a real, small DVC graph; workspaces of the real one."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import ParamsError, PipelineError
from tasks.params import Settings, load_params
from tasks.pipeline import changed_stages, exclusive, repro
from tasks.workspace import Workspace, open_workspace

ROOT = Path(__file__).resolve().parents[1]
GRAPH = """
stages:
  count:
    cmd: >-
      {python} -c "print('counting'); open('n', 'w').write(str(len(open('in').read())))"
    deps: [in]
    outs: [n]
  fail:
    cmd: >-
      {python} -c "import sys; sys.exit('error: there is nothing to eat')"
    deps: [n]
    outs: [never]
  invalid:
    cmd: >-
      {python} -c "import sys; sys.exit(3)"
    deps: [n]
    outs: [never_either]
"""


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True
    )
    (tmp_path / "dvc.yaml").write_text(GRAPH.format(python=sys.executable))
    (tmp_path / "in").write_text("abc")
    params = load_params(ROOT / "conf" / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, params)


def test_a_milestone_is_brought_up_to_date_once(graph: Workspace, settings: Settings) -> None:
    lines: list[str] = []
    assert changed_stages(graph, "count") == ["count"]
    repro(graph, "count", settings, lines.append)
    assert (graph.root / "n").read_text() == "3"
    assert lines == ["Running stage 'count':", "counting"]
    assert changed_stages(graph, "count") == []
    (graph.root / "in").write_text("abcd")
    assert changed_stages(graph, "count") == ["count"]


def test_a_failed_stage_is_told_in_its_own_words(graph: Workspace, settings: Settings) -> None:
    with pytest.raises(PipelineError, match="error: there is nothing to eat") as caught:
        repro(graph, "fail", settings, lambda _: None)
    assert caught.value.exit_code == 2


def test_failed_expectations_keep_their_exit_code(graph: Workspace, settings: Settings) -> None:
    with pytest.raises(PipelineError) as caught:
        repro(graph, "invalid", settings, lambda _: None)
    assert caught.value.exit_code == 3


def test_a_second_run_waits_for_the_first(settings: Settings) -> None:
    order: list[str] = []

    def second() -> None:
        with exclusive(settings):
            order.append("second")

    with exclusive(settings):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.fixture
def in_repository(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bytes]:
    monkeypatch.chdir(ROOT)
    return (ROOT / "conf" / "params.yaml").read_bytes


def test_overrides_get_a_workspace_and_leave_the_tree(
    in_repository: Callable[[], bytes], settings: Settings
) -> None:
    before = in_repository()
    workspace = open_workspace({"train.lr": 0.0123}, settings)
    assert in_repository() == before
    assert workspace.root.is_relative_to(settings.home.resolve())
    assert load_params(workspace.root / "conf" / "params.yaml").train.lr == 0.0123
    assert workspace.params.train.lr == 0.0123
    assert open_workspace({"train.lr": 0.0123}, settings).root == workspace.root
    assert open_workspace({"train.lr": 0.0124}, settings).root != workspace.root


def test_without_overrides_the_repository_is_the_workspace(
    in_repository: Callable[[], bytes], settings: Settings
) -> None:
    assert open_workspace({}, settings).root == ROOT


def test_a_wrong_override_writes_nothing(
    in_repository: Callable[[], bytes], settings: Settings
) -> None:
    with pytest.raises(ParamsError, match=r"did you mean 'train\.lr'"):
        open_workspace({"train.lrr": 1}, settings)
    assert not (settings.home / "workspaces").exists()


def test_a_workspace_sees_relative_images(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tasks", "conf", "dvc.yaml", ".dvcignore", ".dvc"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data" / "mine" / "cat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    workspace = open_workspace({"ingest.sources.digits.path": "data/mine"}, settings)
    assert (workspace.root / "data" / "mine" / "cat").is_dir()
