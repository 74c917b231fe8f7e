"""Makes a site of Data Docs readable without a network, and its first page useful.

Its pages take style sheets, icons and scripts from public addresses, and the first page is
drawn by a script. Here each page gets plain styles that theirs override where they arrive,
and the first page a list of what was checked.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tasks.data.validation.outcomes import Outcome
from tasks.files import write_text

_STYLE = """<style>
body{font-family:system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:0 1rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}
h1,h2,h3,h4,h5,h6{margin:1rem 0 .3rem}
.fa-check-circle::before{content:"holds";color:#070}
.fa-times::before{content:"fails";color:#a00}
.fa-exclamation-triangle::before{content:"error";color:#a60}
.offenders{display:flex;flex-wrap:wrap;gap:12px;margin:8px 0}
.offenders figure{margin:0;width:128px;font-size:12px;overflow-wrap:anywhere}
.offenders img{width:96px;image-rendering:pixelated;border:1px solid #999}
.no-picture{display:block;width:96px;min-height:96px;padding:6px;border:1px dashed #999;color:#a00}
</style>"""


def finish(site: Path, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    """Rewrite the pages below `site`; `outcomes` are those of its suites, by name."""
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8").replace("<head>", f"<head>{_STYLE}", 1)
        if path == site / "index.html":
            page = page.replace("<body>", f"<body>{_summary(site, outcomes)}", 1)
        write_text(path, page)


def _summary(site: Path, outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    return "".join(_suite(site, name, results) for name, results in outcomes.items())


def _suite(site: Path, name: str, results: Sequence[Outcome]) -> str:
    (page,) = site.glob(f"validations/{name}/**/*.html")
    holding = sum(result.success for result in results)
    rows = "".join(_row(result) for result in results)
    return (
        f'<h2><a href="{page.relative_to(site)}">{name}</a>: '
        f"{holding} of {len(results)} expectations hold</h2>"
        f"<table><tr><th></th><th>Expectation</th><th>Severity</th><th>Observed</th>"
        f"<th>Limit</th></tr>{rows}</table>"
    )


def _row(result: Outcome) -> str:
    icon = "fa-check-circle text-success" if result.success else "fa-times text-danger"
    cells = (result.description, result.severity, result.observed, result.limit)
    text = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><td><i class="fas {icon}"></i></td>{text}</tr>'
