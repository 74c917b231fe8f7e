"""Shows the candidates: a table for the log, a CSV for DVC, a page that works offline."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.compression.candidates import Absent, Candidate, Results
from tasks.compression.choose import MEGABYTE, pareto_front
from tasks.files import atomic_write, write_text

_COLOURS = {"chosen": "#1a7f37", "eligible": "#0969da", "rejected": "#8c959f"}
_HEADINGS = ("candidate", "accuracy", "agreement", "ms", "p95 ms", "MB", "parameters", "verdict")


def table(
    candidates: Sequence[Candidate], failed: Sequence[Absent], skipped: Sequence[Absent] = ()
) -> list[list[str]]:
    """Headings, then one row a candidate; * marks the Pareto front."""
    front = pareto_front(candidates)
    rows = [list(_HEADINGS)]
    rows += [_row(candidate, candidate.name in front) for candidate in candidates]
    blanks = [""] * (len(_HEADINGS) - 2)
    rows += [[one.name, *blanks, f"failed: {one.reason}"] for one in failed]
    return rows + [[one.name, *blanks, f"passed over: {one.reason}"] for one in skipped]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def write_csv(path: Path, candidates: Sequence[Candidate]) -> None:
    """name, accuracy, latency_ms, size_bytes, chosen: one row a candidate."""
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", "accuracy", "latency_ms", "size_bytes", "chosen"])
        for c in candidates:
            writer.writerow([c.name, c.accuracy, c.latency_ms, c.size_bytes, c.verdict == "chosen"])


def write_page(path: Path, results: Results, images: int) -> None:
    """One HTML file with the plot and the tables; `images` were validated on. Needs no network."""
    from markupsafe import Markup
    from plotly import graph_objects

    from tasks.pages.render import template

    figure = graph_objects.Figure(_points(results))
    figure.update_xaxes(title="latency at batch 1, ms (median)", rangemode="tozero")
    figure.update_yaxes(title="validation accuracy", tickformat=".1%")
    figure.update_layout(height=560, margin={"t": 30}, template="plotly_white")
    figure.update_layout(legend={"orientation": "h", "y": -0.15})
    plot = Markup(  # noqa: S704, plotly escapes what it writes into its script
        figure.to_html(full_html=False, include_plotlyjs=True, div_id="pareto")
    )
    page = template("pareto.html.j2", Path(__file__).parent)
    front = pareto_front(results.candidates)
    write_text(path, page.render(results=results, plot=plot, front=front, images=images))


def write_image(path: Path, results: Results) -> None:
    """The scatter plot as PNG, for the pages that show no HTML."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for verdict, colour in _COLOURS.items():
        group = [c for c in results.candidates if c.verdict == verdict]
        latencies, accuracies = [c.latency_ms for c in group], [c.accuracy for c in group]
        axes.scatter(latencies, accuracies, s=60, color=colour, label=verdict)
    # Names in turn above and below their marks: neighbours are often as accurate.
    for index, c in enumerate(sorted(results.candidates, key=lambda c: c.latency_ms)):
        axes.annotate(
            c.name,
            (c.latency_ms, c.accuracy),
            xytext=(0, 8 if index % 2 else -8),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="bottom" if index % 2 else "top",
        )
    axes.margins(0.12)
    axes.set(xlabel="latency at batch 1, ms (median)", ylabel="validation accuracy")
    axes.set_title(f"Candidates: {results.chosen} chosen")
    axes.legend()
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=120)


def _row(candidate: Candidate, front: bool) -> list[str]:
    return [
        candidate.name + ("*" if front else ""),
        f"{candidate.accuracy:.4f}",
        f"{candidate.agreement:.4f}",
        f"{candidate.latency_ms:.3f}",
        f"{candidate.latency_p95_ms:.3f}",
        f"{candidate.size_bytes / MEGABYTE:.3f}",
        f"{candidate.parameters:,}",
        f"{candidate.verdict}: {candidate.reason}" if candidate.reason else candidate.verdict,
    ]


def _points(results: Results) -> list[Any]:
    """One trace a verdict; the size of a mark grows with the file's."""
    from plotly import graph_objects

    largest = max(candidate.size_bytes for candidate in results.candidates)
    by_latency = sorted(results.candidates, key=lambda c: c.latency_ms)
    # Names in turn above and below their marks: neighbours are often as accurate.
    sides = {c.name: ("top", "bottom")[i % 2] + " center" for i, c in enumerate(by_latency)}
    traces = []
    for verdict, colour in _COLOURS.items():
        group = [c for c in results.candidates if c.verdict == verdict]
        above = [c.accuracy_high - c.accuracy for c in group]
        below = [c.accuracy - c.accuracy_low for c in group]
        trace = graph_objects.Scatter(
            x=[c.latency_ms for c in group],
            y=[c.accuracy for c in group],
            error_y={"array": above, "arrayminus": below, "thickness": 1, "width": 3},
            text=[c.name for c in group],
            hovertext=[f"{c.name}<br>{c.technique}<br>{c.reason}" for c in group],
            name=verdict,
            mode="markers+text",
            textposition=[sides[c.name] for c in group],
            marker={
                "color": colour,
                "size": [12 + 24 * c.size_bytes / largest for c in group],
            },
        )
        traces.append(trace)
    return traces
