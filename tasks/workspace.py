"""Where DVC runs: the repository itself, or a workspace of its own for overridden parameters.

A workspace under <home>/workspaces holds a copy of the graph and the code with its own
conf/params.yaml and shares the repository's DVC cache: unchanged stages are taken from it,
and the working tree stays as it was.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tasks.files import sha256_json, write_text
from tasks.params import (
    PARAMS_FILE,
    Settings,
    apply_overrides,
    check_params,
    load_params,
    read_yaml,
)
from tasks.schema import Params

_COPIED = ("tasks", "conf", "dvc.yaml", ".dvcignore", "data/review.csv")
_REMEMBERED = "data/splits.parquet"  # the split step keeps old images where they were
_KEPT_WORKSPACES = 5


@dataclass(frozen=True)
class Workspace:
    """A directory that DVC runs in, and the parameters in force there."""

    root: Path
    params: Params

    @property
    def bundle(self) -> Path:
        """Where the release bundle is built."""
        return self.root / "data" / "bundle"


def open_workspace(overrides: Mapping[str, object], settings: Settings) -> Workspace:
    """The repository, or, for overrides ({"train.lr": 0.01}), a workspace of their own.

    Raises ParamsError before anything is written when a key or value is wrong.
    """
    root = Path.cwd()
    params = load_params(overrides=overrides)
    if not overrides:
        return Workspace(root, params)
    workspace = settings.home.resolve() / "workspaces" / sha256_json(dict(overrides))[:12]
    _fill_workspace(root, workspace, overrides)
    _link_inputs(root, workspace, params)
    _remove_old_workspaces(workspace)
    return Workspace(workspace, params)


def _fill_workspace(root: Path, workspace: Path, overrides: Mapping[str, object]) -> None:
    (workspace / "data").mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        _copy(root / name, workspace / name)
    for pointer in (root / "data").rglob("*.dvc"):
        _copy(pointer, workspace / pointer.relative_to(root))
    if not (workspace / _REMEMBERED).exists():
        _copy(root / _REMEMBERED, workspace / _REMEMBERED)
    if not (workspace / "dvc.lock").exists() and (root / "dvc.lock").exists():
        shutil.copy2(root / "dvc.lock", workspace / "dvc.lock")
    if not (workspace / ".venv").exists():
        (workspace / ".venv").symlink_to(Path(sys.prefix), target_is_directory=True)
    _configure_dvc(root, workspace)
    _write_params(root / PARAMS_FILE, workspace / PARAMS_FILE, overrides)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=ignore)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _configure_dvc(root: Path, workspace: Path) -> None:
    """A DVC repository without git that shares the cache of the main one."""
    directory = workspace / ".dvc"
    directory.mkdir(exist_ok=True)
    shutil.copy2(root / ".dvc" / "config", directory / "config")
    local = root / ".dvc" / "config.local"
    inherited = local.read_text(encoding="utf-8") if local.exists() else ""
    cache = f"[cache]\n    dir = {root / '.dvc' / 'cache'}\n" if "dir =" not in inherited else ""
    write_text(directory / "config.local", f"{inherited}\n{cache}[core]\n    no_scm = true\n")


def _write_params(source: Path, target: Path, overrides: Mapping[str, object]) -> None:
    from ruamel.yaml import YAML

    values = apply_overrides(read_yaml(source), overrides)
    check_params(values, str(source))
    text = f"# {source.name} with overrides: {json.dumps(dict(overrides), default=str)}\n"
    stream = StringIO()
    YAML().dump(values, stream)
    write_text(target, text + stream.getvalue())


def _link_inputs(root: Path, workspace: Path, params: Params) -> None:
    """Let the workspace see the user's images (the quickstart's come from DVC) and weights."""
    paths = [Path(given.path) for given in params.ingest.sources.values()]
    paths += [Path(params.train.weights)] if params.train.weights else []
    for path in paths:
        source, target = root / path, workspace / path
        if path.is_absolute() or path.is_relative_to("data/raw/digits") or not source.exists():
            continue
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)


def _remove_old_workspaces(newest: Path) -> None:
    os.utime(newest)
    others = sorted(newest.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[_KEPT_WORKSPACES:]:
        shutil.rmtree(path, ignore_errors=True)
