"""data/tune/best.yaml: what the sweep found, and the train section with it applied.

The file holds keys of the train section (`augment` nested) beside FACTS about the trial.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.errors import ParamsError
from tasks.files import atomic_write
from tasks.params import apply_overrides, read_yaml
from tasks.schema import Train

BEST = Path("data/tune/best.yaml")
FACTS = ("trial", "value", "accuracy")


def overridden(train: Train, values: Mapping[str, object], source: str) -> Train:
    """The train section with dotted keys replaced; ParamsError names the value at fault."""
    merged = apply_overrides(train.model_dump(), values)
    try:
        return Train.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ParamsError(f"{source}: {key}: {first['msg']}, got {first['input']!r}") from None


def write_best(
    path: Path, values: Mapping[str, object], trial: int, value: float, accuracy: float
) -> None:
    """Write the winning dotted values, the trial's number (from 0) and what it reached.

    `value` is its lowest validation loss, `accuracy` the validation accuracy of that epoch.
    """
    from ruamel.yaml import YAML

    facts = dict(zip(FACTS, (trial, value, accuracy), strict=True))
    with atomic_write(path, "w") as stream:
        stream.write(f"# The best trial: values of the train section, and {', '.join(FACTS)}.\n")
        YAML().dump({**_nested(values), **facts}, stream)


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
