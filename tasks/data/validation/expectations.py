"""Reads conf/expectations/*.yaml: Great Expectations' own vocabulary, values from the params.

Takes <table>.yaml, gives declared expectations whose {$PARAMETER: validate.KEY} are filled in
from conf/params.yaml. A mistake raises ParamsError in one line that names the file, the entry
and the nearest valid name, before any expectation is run.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import ParamsError
from tasks.params import read_yaml
from tasks.schema import Validate

FOLDER = Path("conf/expectations")
TABLES = ("manifest", "cleaned", "splits")
SEVERITIES = ("critical", "warning", "info")
_KEYS = ("type", "description", "severity", "kwargs", "meta", "notes")
_PARAMETER, _SECTION = "$PARAMETER", "validate"
_SHIPPED = (
    "`git checkout -- {path}` brings back the one that was shipped, and `expectations: []` in it "
    "asks for nothing"
)
_COLUMNS = ("column", "column_A", "column_B", "column_list", "row_condition")


@dataclass(frozen=True)
class Entry:
    """One declared expectation; `params` says which kwargs came from conf/params.yaml."""

    where: str
    type: str
    kwargs: dict[str, Any]
    params: dict[str, str]
    description: str | None = None
    severity: str = "critical"
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def limit(self) -> str:
        """What is asked for, each value with the parameter it came from."""
        asked = {k: v for k, v in self.kwargs.items() if k not in _COLUMNS}
        parts = [
            f"{name} {value!r}" + (f" ({self.params[name]})" if name in self.params else "")
            for name, value in asked.items()
        ]
        return ", ".join(parts) or "no exception"


def load_entries(config: Validate, folder: Path = FOLDER) -> dict[str, list[Entry]]:
    """The declared expectations of each of TABLES; raises ParamsError.

    An entry that asks for a parameter that is null is left out.
    """
    if folder.is_dir():
        for path in folder.glob("*.y*ml"):
            if path.name not in [f"{table}.yaml" for table in TABLES]:
                raise ParamsError(
                    f"{path}: nothing runs this file; the tables are {', '.join(TABLES)}"
                    + nearest(path.stem, TABLES)
                )
    values = config.model_dump()
    return {table: _read(folder / f"{table}.yaml", values) for table in TABLES}


def check_columns(entries: Iterable[Entry], columns: Iterable[str]) -> None:
    """Raise ParamsError for the first entry that names a column the table lacks."""
    known = list(columns)
    for entry in entries:
        for name in _columns(entry):
            if name not in known:
                raise ParamsError(
                    f"{entry.where}: the table has no column {name!r}{nearest(name, known)}"
                )


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for the closest of `known`, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def _read(path: Path, values: Mapping[str, Any]) -> list[Entry]:
    document = read_yaml(path, _SHIPPED.format(path=path))
    _only(document, ("expectations",), str(path))
    listed = document.get("expectations")
    if not isinstance(listed, list):
        raise ParamsError(f"{path}: `expectations` must be a list, got {_kind(listed)}")
    entries = [_entry(path, number, item, values) for number, item in enumerate(listed, 1)]
    return [entry for entry in entries if entry is not None]


def _entry(path: Path, number: int, item: Any, values: Mapping[str, Any]) -> Entry | None:
    where = f"{path}, entry {number}"
    if not isinstance(item, dict):
        raise ParamsError(f"{where} must be a mapping with a `type`, got {_kind(item)}")
    _only(item, _KEYS, where)
    if not isinstance(item.get("type"), str):
        raise ParamsError(f"{where} has no `type`, such as expect_column_values_to_be_between")
    where = f"{where} ({item['type']})"
    severity = item.get("severity", "critical")
    if severity not in SEVERITIES:
        raise ParamsError(
            f"{where}: severity {severity!r} is none of {', '.join(SEVERITIES)}"
            + nearest(str(severity), SEVERITIES)
        )
    kwargs = item.get("kwargs") or {}
    if not isinstance(kwargs, dict):
        raise ParamsError(f"{where}: `kwargs` must be a mapping, got {_kind(kwargs)}")
    params = {name: _parameter(value, where) for name, value in kwargs.items()}
    named = {name: param for name, param in params.items() if param is not None}
    filled = kwargs | {name: _value(param, values, where) for name, param in named.items()}
    if any(filled[name] is None for name in named):
        return None
    extras = {key: item[key] for key in ("meta", "notes") if item.get(key) is not None}
    return Entry(where, item["type"], filled, named, item.get("description"), severity, extras)


def _parameter(value: Any, where: str) -> str | None:
    """The parameter that a kwarg asks for, or None for a plain value."""
    if not (isinstance(value, dict) and _PARAMETER in value):
        return None
    _only(value, (_PARAMETER,), where)
    return str(value[_PARAMETER])


def _value(param: str, values: Mapping[str, Any], where: str) -> Any:
    section, _, key = param.partition(".")
    if section != _SECTION or key not in values:
        known = [f"{_SECTION}.{name}" for name in values]
        hint = nearest(param, known) or f"; the section {_SECTION} of conf/params.yaml has them"
        raise ParamsError(f"{where}: {param!r} is not a parameter of it{hint}")
    return values[key]


def _columns(entry: Entry) -> list[str]:
    """The columns an entry reads; what it asks of the set of columns itself is left to it."""
    if entry.type == "expect_column_to_exist" or entry.type.startswith("expect_table_"):
        return []
    kwargs = entry.kwargs
    names = [kwargs.get(key) for key in ("column", "column_A", "column_B")]
    names += kwargs["column_list"] if isinstance(kwargs.get("column_list"), list) else []
    names += [f"flag_{flag}" for flag in kwargs.get("flags") or []]
    names += ["split"] if kwargs.get("splits") or entry.type.endswith("_within_one_split") else []
    names += _condition_columns(kwargs.get("row_condition"))
    return [name for name in names if isinstance(name, str)]


def _condition_columns(condition: Any) -> list[str]:
    if not isinstance(condition, dict):
        return []
    own = condition.get("column")
    names = [own["name"]] if isinstance(own, dict) and "name" in own else []
    for part in condition.get("conditions") or []:
        names += _condition_columns(part)
    return names


def _only(item: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in item:
        if key not in known:
            hint = nearest(str(key), known) or f"; known: {', '.join(known)}"
            raise ParamsError(f"{where}: {key!r} is not a key{hint}")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"[:60]
