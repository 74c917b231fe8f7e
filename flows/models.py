"""`visionloop models`: the architectures with what each costs on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tasks.compression.catalogue import NAMES, Cost, costs
from tasks.params import load_params

RUNTIME = "ONNX Runtime fp32, batch 1"
_CLASSES = 10  # where validate.labels does not say: a network costs about the same with any number


@dataclass(frozen=True)
class Measured:
    """The costs, and the input they are of; `current` is train.architecture."""

    size: int
    classes: int
    current: str
    models: list[Cost]

    def as_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "size": self.size,
            "classes": self.classes,
            "runtime": RUNTIME,
            "models": [cost.as_json() for cost in self.models],
        }


def measure(names: Sequence[str], size: int | None, classes: int | None) -> Measured:
    """Measure the named architectures (all when none is), with a bar on standard error.

    `size` and `classes` are those of conf/params.yaml when unset. Raises ParamsError for a name
    that is no architecture.
    """
    params = load_params()
    size = size or params.prepare.size
    classes = classes or len(params.validate_.labels or ()) or _CLASSES
    wanted = list(dict.fromkeys(names)) or list(NAMES)
    coming = costs(wanted, params.train, size, classes)
    found: list[Cost] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=len(wanted))
        for name in wanted:
            bar.update(task, description=name)
            found.append(next(coming))
            bar.advance(task)
    return Measured(size, classes, params.train.architecture, found)


def show(measured: Measured, console: Console) -> None:
    """Print a row for each architecture."""
    size = f"{measured.size}×{measured.size} pixels"
    title = f"train.architecture at {size}, {measured.classes} classes; latency: {RUNTIME}, here"
    table = Table(title=title, title_justify="left", padding=0)
    table.add_column("architecture", no_wrap=True)
    for name in ("weights", "MACs", "file", "latency", "p95", "threads"):
        table.add_column(name, justify="right", no_wrap=True)
    for cost in measured.models:
        style = "bold" if cost.name == measured.current else None
        if cost.failure is None:
            table.add_row(*_cells(cost), style=style)
    console.print(table)
    for cost in measured.models:
        if cost.failure is not None:
            console.print(f"{cost.name}: {cost.failure}", style="yellow", markup=False)


def _cells(cost: Cost) -> tuple[str, ...]:
    return (
        cost.name,
        f"{cost.parameters / 1e6:.2f} M",
        f"{cost.macs / 1e6:,.1f} M",
        f"{cost.size_bytes / 1e6:.1f} MB",
        f"{cost.latency_ms:.2f} ms",
        f"{cost.latency_p95_ms:.2f} ms",
        str(cost.threads),
    )
