"""Reads conf/params.yaml, applies dotted overrides, and reads settings from the environment.

Takes YAML, gives `tasks.schema.Params`. A misspelt key, a wrong type or an out-of-range
value raises ParamsError before any work, names the key and suggests the nearest one.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import ParamsError
from tasks.schema import ATTRIBUTES, Params

PARAMS_FILE = Path("conf/params.yaml")
_WITH_METADATA = ("table", "coco", "voc")


class Settings(BaseSettings):
    """Addresses and secrets, from the environment (`VISIONLOOP_…`)."""

    model_config = SettingsConfigDict(env_prefix="VISIONLOOP_", extra="ignore")

    home: Path = Field(Path(".visionloop"), description="state that is not data: runs, keys, logs")
    tracking_uri: str = Field(
        "http://127.0.0.1:5000",
        description="the MLflow server",
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "VISIONLOOP_TRACKING_URI"),
    )
    database_url: SecretStr | None = Field(
        None, description="prediction log; SQLite under `home` when unset"
    )
    study_storage: SecretStr | None = Field(
        None, description="PostgreSQL, for sweeps over several machines; a file when unset"
    )
    dask_scheduler: str | None = Field(
        None, description="address of the Dask scheduler, for ingest.backend: dask"
    )
    host: str = Field("127.0.0.1", description="address the model server listens on")
    port: int = Field(8000, ge=0, le=65535, description="port of the model server")
    signing_key: Path | None = Field(None, description="Ed25519 private key (PEM)")
    trusted_key: Path | None = Field(None, description="public key (PEM) bundles must match")

    @property
    def releases(self) -> Path:
        """The local release directory that the server follows."""
        return self.home / "releases"

    @property
    def predictions_url(self) -> str:
        """SQLAlchemy address of the prediction log."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.home / 'predictions.db').resolve()}"


def load_settings() -> Settings:
    """The settings in force; raises ParamsError naming the environment variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"VISIONLOOP_{name.upper()}"
        raise ParamsError(f"environment variable {variable}: {first['msg']}") from None


def load_params(
    path: Path | str = PARAMS_FILE, overrides: Mapping[str, object] | None = None
) -> Params:
    """Read and check a params file, with dotted `overrides` ({"train.lr": 0.01}) applied."""
    return check_params(apply_overrides(read_yaml(path), overrides or {}), str(path))


def check_params(values: Mapping[str, Any], source: str = str(PARAMS_FILE)) -> Params:
    """Validate plain values; raises ParamsError listing every mistake, by key."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        lines = [_explain(dict(item)) for item in error.errors()]
        raise ParamsError(f"{source}: " + "\n  ".join(lines)) from None
    _check_space(params, source)
    if not any(one.layout in _WITH_METADATA for one in params.ingest.sources.values()):
        check_groups(params.evaluate.slices.groups, ATTRIBUTES, source)
    return params


def check_groups(
    groups: Iterable[str], known: Iterable[str], source: str = str(PARAMS_FILE)
) -> None:
    """Raises ParamsError for a name in evaluate.slices.groups that is no attribute of the data."""
    names = list(known)
    for group in groups:
        if group not in names:
            near = difflib.get_close_matches(group, names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ParamsError(
                f"{source}: evaluate.slices.groups: {group!r} is no attribute of these images; "
                f"{hint}there are {', '.join(names)}"
            )


def read_yaml(
    path: Path | str, if_missing: str = "run this in the repository, or `visionloop init`"
) -> dict[str, Any]:
    """The top-level mapping of a YAML file; ParamsError, with the way out when there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; {if_missing}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path} must hold `key: value` pairs, got {type(values).__name__}")
    return values


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """A deep copy of `values` with dotted keys replaced; an unknown key raises ParamsError."""
    result: dict[str, Any] = _deep_copy(values)
    for dotted, value in overrides.items():
        node: Any = result
        *parents, last = dotted.split(".")
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise ParamsError(f"override {dotted!r} is not a parameter{_nearest(dotted)}")
        node[last] = value
    return result


@cache
def known_keys() -> tuple[str, ...]:
    """Every dotted key of the schema, as ("train.lr", …)."""
    return tuple(_keys(Params, ""))


def _keys(model: type[BaseModel], prefix: str) -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        keys.append(key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, key + ".")
    return keys


def _explain(item: dict[str, Any]) -> str:
    parts = [str(part) for part in item["loc"]]
    unions = (["ingest", "sources"], 3), (["tune", "space"], 3), (["prepare", "normalise"], 2)
    for union, place in (*unions, (["train", "finetune", "freeze"], 3)):
        if parts[: len(union)] == union:
            del parts[place : place + 1]  # pydantic names the form there, which is no key
    key = ".".join(parts)
    if item["type"] == "extra_forbidden":
        return f"{key} is not a parameter{_nearest(key)}"
    if item["type"] == "missing":
        return f"{key} is missing"
    given = item.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"{key}: {item['msg']}{shown}"


def _nearest(key: str) -> str:
    match = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else "; see conf/params.yaml"


def _check_space(params: Params, source: str) -> None:
    for key, bounds in params.tune.space.items():
        for path, name in [("", key), *((f"{key}.when.", other) for other in bounds.when or {})]:
            if f"train.{name}" not in known_keys():
                suggestion = _nearest(f"train.{name}").replace("train.", "")
                raise ParamsError(
                    f"{source}: tune.space.{path}{name} is not a key of train{suggestion}"
                )
        if key == "epochs":
            raise ParamsError(f"{source}: tune.space.epochs: every trial has tune.epochs epochs")


def _deep_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep_copy(item) for key, item in value.items()}
    return [_deep_copy(item) for item in value] if isinstance(value, list) else value
