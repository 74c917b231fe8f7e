"""Where a bundle comes from: the commit, the data version, the parameters and the run.

Nothing here depends on the clock or the machine, so the same inputs give the same bundle.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.bundle import Lineage
from tasks.errors import TrainingError
from tasks.files import sha256_json
from tasks.params import read_yaml
from tasks.schema import Params

# What happens after the bundle (gate, serve, drift) does not change the bundle.
_SECTIONS = {
    "ingest", "clean", "validate_", "split", "prepare", "tune", "train", "compress", "budget",
    "evaluate",
}  # fmt: skip
_INPUTS = ("data/shards", "data/candidates", "data/model")


def read_lineage(params: Params, root: Path = Path()) -> Lineage:
    """The lineage of a bundle built in `root`; raises TrainingError without a training run."""
    return Lineage(
        git_commit=git_commit(root),
        dvc_lock=dvc_lock_hash(root / "dvc.lock"),
        params_hash=sha256_json(params.model_dump(include=_SECTIONS, by_alias=True)),
        run_key=run_key(root / "data/model"),
    )


def git_commit(root: Path = Path()) -> str | None:
    """The commit checked out in `root`, or None outside a git repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True
        )
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def dvc_lock_hash(path: Path) -> str | None:
    """SHA-256 of the locked stages that evaluation builds on, or None without a dvc.lock.

    The stages are found by following outs and deps upwards, so the evaluation's own earlier
    outputs never change it.
    """
    if not path.is_file():
        return None
    stages = read_yaml(path).get("stages") or {}
    return sha256_json(_upstream(stages, _INPUTS))


def run_key(model: Path) -> str:
    """The tracked training run that made the model; raises TrainingError."""
    try:
        return str(json.loads((model / "run.json").read_text(encoding="utf-8"))["run_key"])
    except (OSError, ValueError, KeyError):
        raise TrainingError(f"{model}/run.json names no run; `dvc repro train` writes it") from None


def _upstream(stages: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    paths = list(wanted)
    while paths:
        path = paths.pop()
        for name, stage in stages.items():
            outs = [out["path"] for out in stage.get("outs", [])]
            if name not in found and any(_touches(path, out) for out in outs):
                found[name] = stage
                paths += [dep["path"] for dep in stage.get("deps", [])]
    return found


def _touches(path: str, out: str) -> bool:
    """Whether `path` is `out`, in it, or holds it."""
    a, b = PurePosixPath(path), PurePosixPath(out)
    return a.is_relative_to(b) or b.is_relative_to(a)
