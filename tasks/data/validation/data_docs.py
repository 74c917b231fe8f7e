"""What Data Docs shows beside an expectation that failed: limit, severity, and the offenders.

Great Expectations loads this class by its name, from the site's configuration.
"""

from collections.abc import Callable
from html import escape
from typing import Any

from great_expectations.render.components import RenderedStringTemplateContent, RenderedTableContent
from great_expectations.render.renderer.content_block.validation_results_table_content_block import (  # noqa: E501
    ValidationResultsTableContentBlockRenderer,
)


class OffenderTable(ValidationResultsTableContentBlockRenderer):
    """The library's table of results, with the offenders of each failure in its row."""

    @classmethod
    def _get_content_block_fn(
        cls, expectation_type: str, expectation_config: Any = None
    ) -> Callable[..., Any]:
        rows: Any = super()._get_content_block_fn(expectation_type, expectation_config)

        def with_offenders(**kwargs: Any) -> Any:
            (row,) = rows(**kwargs)
            row = [_escaped(cell) for cell in row]
            meta = kwargs["result"].meta or {}
            if "figures" in meta:
                cell = row[1] if isinstance(row[1], list) else [row[1]]
                row[1] = [*cell, _offenders(meta)]
            return [row]

        return with_offenders


def _escaped(cell: Any) -> Any:
    """A cell with its plain texts escaped: the library writes them, names of files too, as HTML."""
    if isinstance(cell, list):
        return [_escaped(part) for part in cell]
    if isinstance(cell, RenderedTableContent):
        cell.table = _escaped(cell.table)
    return escape(cell) if isinstance(cell, str) else cell


def _offenders(meta: dict[str, Any]) -> RenderedStringTemplateContent:
    consequence = "stops the run" if meta["severity"] == "critical" else "is reported"
    text = escape(f"Limit: {meta['limit']}. Severity {meta['severity']}: {consequence}.")
    html = f'<p>{text}</p><div class="offenders">{"".join(meta["figures"])}</div>'
    return RenderedStringTemplateContent(
        content_block_type="string_template",
        # the library would take $name for one of its values, and a line break for <br>
        string_template={
            "template": html.replace("$", "&#36;").replace("\n", "&#10;"),
            "tag": "div",
        },
    )
