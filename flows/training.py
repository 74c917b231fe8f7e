"""`visionloop training`: what can be tried out before a long training, and how it is shown.

All work on the prepared images with the settings that `dvc repro train` would have; no model is
written.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from tasks.files import write_directory
from tasks.training.batch_size import BatchSize, batch_sizes
from tasks.training.lr_range import PAGE, for_range_test, range_test, write
from tasks.training.profile import TABLE, TRACE, profile_steps
from tasks.training.rehearsal import rehearsal

RANGE, PROFILE = Path("data/lr_range"), Path("data/profile")


@dataclass(frozen=True)
class BatchSizes:
    """Every batch tried, in order; `current` is train.batch_size."""

    current: int
    tried: list[BatchSize]

    @property
    def fitting(self) -> list[BatchSize]:
        """Those that fit."""
        return [one for one in self.tried if one.reason is None]

    @property
    def largest(self) -> int | None:
        """Images of the largest that fits."""
        return max((one.images for one in self.fitting), default=None)

    @property
    def fastest(self) -> int | None:
        """Images of the one with the most images per second."""
        best = max(self.fitting, key=lambda one: one.images_per_second, default=None)
        return best.images if best else None

    def as_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "current": self.current,
            "largest": self.largest,
            "fastest": self.fastest,
            "tried": [asdict(one) for one in self.tried],
        }


def find_rates() -> dict[str, float | str]:
    """Test the learning rates and write data/lr_range; raises what `range_test` does."""
    config, begin = rehearsal()
    with _working("training at growing learning rates"):
        result = range_test(begin(for_range_test(config)))
    write_directory(RANGE, lambda folder: write(result, folder))
    return {
        "steepest": result.steepest,
        "highest": result.highest,
        "current": config.lr,
        "plot": str(RANGE / PAGE),
    }


def show_rates(found: dict[str, float | str], console: Console) -> None:
    """Print the rates to choose from."""
    table = Table(show_header=False, box=None)
    table.add_row("for the whole run", f"{found['steepest']:.2g}", "where the loss falls fastest")
    table.add_row("top of one_cycle", f"{found['highest']:.2g}", "a third of the lowest loss's")
    table.add_row("train.lr now", f"{found['current']:g}")
    console.print(table)
    console.print(f"plot: {found['plot']}", markup=False)


def find_batch_sizes() -> BatchSizes:
    """Try batches of growing size; raises what `batch_sizes` does."""
    config, begin = rehearsal()
    found: list[BatchSize] = []
    with _working("8 images") as bar:
        for one in batch_sizes(config, begin):
            found.append(one)
            bar.update(bar.task_ids[0], description=f"{2 * one.images:,} images")
    return BatchSizes(config.batch_size, found)


def show_batch_sizes(found: BatchSizes, console: Console) -> None:
    """Print a row for each batch, and which is the largest and the fastest."""
    table = Table()
    for name in ("batch", "images/s", "peak MB"):
        table.add_column(name, justify="right")
    for one in found.fitting:
        style = "bold" if one.images == found.current else None
        rate, memory = f"{one.images_per_second:,.0f}", f"{one.memory_mb:,.0f}"
        table.add_row(f"{one.images:,}", rate, memory, style=style)
    console.print(table)
    for one in found.tried:
        if one.reason is not None:
            console.print(f"{one.images:,}: {one.reason}", style="yellow", markup=False)
    all_fit = found.tried == found.fitting
    limit = " (the training split allows no larger one)" if all_fit else ""
    console.print(
        f"the largest that fits is {found.largest or 'below 8'}{limit}, the fastest "
        f"{found.fastest}; train.batch_size is {found.current}",
        markup=False,
    )


def find_times() -> dict[str, float]:
    """Each phase's share of a step; writes data/profile, raises what `profile_steps` does."""
    config, begin = rehearsal()
    with _working("training under torch's profiler"):
        return profile_steps(begin(config), PROFILE)


def show_times(shares: dict[str, float], console: Console) -> None:
    """Print each phase's share, and where the rest is."""
    table = Table("phase", "share of a step")
    for name, share in shares.items():
        table.add_row(name, f"{share:.1%}")
    console.print(table)
    console.print(f"operators: {PROFILE / TABLE}", markup=False)
    console.print(f"trace: {PROFILE / TRACE} (chrome://tracing, Perfetto)", markup=False)


def _working(what: str) -> Progress:
    """A spinner on standard error while something is tried."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task(what)
    return bar
