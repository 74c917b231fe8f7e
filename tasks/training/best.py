"""data/tune/best.yaml: what the sweep found, and the train section with it applied.

The file holds keys of the train section (`augment` nested) beside FACTS about the trial. Beside
it, study.json says where the weights of the best trials are.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.errors import ParamsError, TrainingError
from tasks.files import atomic_write
from tasks.params import apply_overrides, read_yaml
from tasks.schema import Train

BEST = Path("data/tune/best.yaml")
STUDY = "study.json"
FACTS = ("trial", "value", "accuracy", "latency_ms", "size_mb")
log = logging.getLogger(__name__)


def overridden(train: Train, values: Mapping[str, object], source: str) -> Train:
    """The train section with dotted keys replaced; ParamsError names the value at fault."""
    merged = apply_overrides(train.model_dump(), values)
    try:
        return Train.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ParamsError(f"{source}: {key}: {first['msg']}, got {first['input']!r}") from None


def write_best(path: Path, values: Mapping[str, object], facts: Mapping[str, object]) -> None:
    """Write the winning dotted values and what is known of the trial, some or all of FACTS.

    `trial` is its number (from 0), `value` what it reached of the first of tune.objectives,
    `accuracy` the validation accuracy of the epoch whose weights were kept.
    """
    from ruamel.yaml import YAML

    with atomic_write(path, "w") as stream:
        stream.write(f"# The best trial: values of the train section, and {', '.join(facts)}.\n")
        YAML().dump({**_nested(values), **facts}, stream)


def best_models(count: int, home: Path, directory: Path = BEST.parent) -> list[Path]:
    """Directories (of `models.save_model`) with the weights of the best trials, best first.

    At most `count`; `home` is Settings.home, `directory` what the step `tune` wrote. Raises
    TrainingError when one is not on this machine.
    """
    try:
        study = json.loads((directory / STUDY).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"no sweep at {error.filename}; `dvc repro tune` runs one") from None
    if len(study["best"]) < count:
        log.warning("%d trials are asked for, %d have weights", count, len(study["best"]))
    folders = [home / "studies" / study["key"] / f"trial-{n}" for n in study["best"][:count]]
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(
                f"the weights of {folder.name} are not at {folder}; they stay on the machine that "
                "trained them: use that VISIONLOOP_HOME, or `dvc repro --force tune` with another "
                "tune.seed"
            )
    return folders


def apply_best(train: Train, path: Path = BEST) -> Train:
    """The train section with the sweep's best values; ParamsError when they do not fit it."""
    best = {key: value for key, value in read_yaml(path).items() if key not in FACTS}
    return overridden(train, _dotted(best), str(path))


def _nested(values: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        node = nested
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return nested


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    dotted: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            dotted |= _dotted(value, f"{prefix}{key}.")
        else:
            dotted[prefix + key] = value
    return dotted
