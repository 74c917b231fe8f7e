"""What came of an expectation, in the words of a message, a page or result.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.data.validation.expectations import Entry

ROWS_SHOWN = 10


@dataclass(frozen=True)
class Outcome:
    """One expectation's result; `rows` are up to ROWS_SHOWN offenders (path, label, value)."""

    expectation: str
    description: str
    severity: str
    success: bool
    observed: str
    limit: str
    rows: list[dict[str, str]] = field(default_factory=list)


def outcome_of(entry: Entry, item: Any) -> Outcome:
    """What the library's result of an entry says."""
    column = entry.kwargs.get("column")
    rows = item.result.get("partial_unexpected_index_list") or []
    return Outcome(
        expectation=f"{entry.type}({column})" if column else entry.type,
        description=entry.description or entry.type.replace("_", " "),
        severity=entry.severity,
        success=bool(item.success),
        observed=_observed(item),
        limit=entry.limit,
        rows=[_row(row) for row in rows[:ROWS_SHOWN]] if not item.success else [],
    )


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    """path, label and value; the library names the value by its column."""
    others = {name: value for name, value in row.items() if name not in ("path", "label")}
    value = ", ".join(
        str(value) if name == "value" else f"{name} {_plain(value)!r}"
        for name, value in others.items()
    )
    return {"path": str(row.get("path")), "label": str(row.get("label")), "value": value}


def _plain(value: Any) -> Any:
    """A number of Python's own: numpy's says what it is."""
    return value.item() if hasattr(value, "item") else value


def _observed(item: Any) -> str:
    if message := _exception(item.exception_info or {}):
        return f"an error: {message}"
    if missing := item.result.get("partial_missing_list"):
        return f"no image of {', '.join(map(repr, missing))}"
    if "unexpected_percent" in item.result:
        counted = item.result["element_count"] - _ignored(item)
        return f"{item.result['unexpected_count']} of {counted} rows"
    return str(item.result.get("observed_value"))


def _exception(info: Mapping[str, Any]) -> str | None:
    """The first exception's message; the library gives one, or one for each of its metrics."""
    each = [info] if "raised_exception" in info else list(info.values())
    raised = [one for one in each if isinstance(one, dict) and one.get("raised_exception")]
    return " ".join(str(raised[0]["exception_message"]).split()) if raised else None


def _ignored(item: Any) -> int:
    """Nulls are passed over, except where null is what the expectation is about."""
    if "null" in item.expectation_config.type:
        return 0
    return int(item.result.get("missing_count") or 0)
