"""`python -m flows.reference`: rewrite the table of keys in docs/configuration.md.

The table comes from the schema and the comments of conf/params.yaml; a test fails when the
page is older than they are.
"""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from tasks.files import write_text
from tasks.params import PARAMS_FILE
from tasks.schema import Params

PAGE = Path("docs/configuration.md")
BEGIN, END = "<!-- keys: python -m flows.reference -->", "<!-- /keys -->"
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def with_table(page: str) -> str:
    """`page` with the part between the marks replaced by the table of today."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def table() -> str:
    """Markdown sections, one per section of the params file, with a row per key."""
    tree: Any = YAML().load(PARAMS_FILE.read_text(encoding="utf-8"))
    parts = []
    for name, field in Params.model_fields.items():
        section, model = field.alias or name, field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"section {section} is not a model")
        rows = "".join(_rows(model, tree[section], f"{section}."))
        summary = (model.__doc__ or "").strip().splitlines()[0]
        parts.append(
            f"\n### {section}\n\n{summary}\n\n"
            f"| key | value | quickstart | meaning |\n| --- | --- | --- | --- |\n{rows}"
        )
    return "".join(parts) + "\n"


def _rows(model: type[BaseModel], node: Any, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _rows(kind, node[key], f"{prefix}{key}.")
            continue
        value = "…" if isinstance(node[key], dict | list) else _plain(node[key])
        meaning = (field.description or _comment(node, key)).replace("|", "\\|")
        yield f"| `{prefix}{key}` | {_type(kind)}{_bounds(field)} | {value} | {meaning} |\n"


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _type(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return ", ".join(str(choice) for choice in get_args(kind))
    if origin in (Union, types.UnionType):
        return " or ".join(_type(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _variant(kind)
    if origin is list:
        return "list"
    if origin is dict:
        return "ranges"
    names = {int: "whole number", float: "number", str: "text", bool: "true, false"}
    return "null" if kind is type(None) else names.get(kind, "value")


def _variant(model: type[BaseModel]) -> str:
    """One of several models that a key may hold: its tag, and the keys beside it."""
    (_, tag), *others = model.model_fields.items()
    keys = ", ".join(name for name, _ in others)
    return f"{_type(tag.annotation)} ({keys})" if keys else _type(tag.annotation)


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(item, name)}"
        for name, sign in _BOUNDS
        for item in field.metadata
        if getattr(item, name, None) is not None
    ]
    return f" {', '.join(found)}" if found else ""


def _comment(node: Any, key: str) -> str:
    """The comment beside a key of the params file."""
    tokens = node.ca.items.get(key)
    lines = tokens[2].value.strip().splitlines() if tokens and tokens[2] else []
    return lines[0].lstrip("# ").strip() if lines else ""


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
