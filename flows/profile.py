"""`visionloop profile`: what a bundle's model costs here, operator by operator."""

import csv
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.bundle import chosen_bundle
from tasks.bundle import MODEL
from tasks.edge.profile import Profile, Row, profile
from tasks.external_data import refuse_external_data
from tasks.files import atomic_write
from tasks.params import load_settings
from tasks.runtime import GPU, TITLES, RuntimeName

_SLOWEST = 8  # nodes shown one by one


def measure(
    given: Path | None, runtime: RuntimeName | None, threads: int | None, batch: int, runs: int
) -> Profile:
    """Profile a bundle, or an ONNX file of the pipeline.

    Runtime and threads are the bundle's when unset, of a file ONNX Runtime and 1. Raises
    BundleError, RuntimeMissing.
    """
    if given is not None and given.suffix == ".onnx":
        refuse_external_data(given)
        return profile(given, threads or 1, batch, runs, runtime or "onnxruntime")
    bundle = chosen_bundle(given, load_settings())
    threads = threads or bundle.info.runtime.intra_op_threads
    return profile(bundle.path / MODEL, threads, batch, runs, runtime or bundle.runtime)


def write_csv(measured: Profile, path: Path) -> None:
    """Write a row a node, the slowest first, atomically."""
    with atomic_write(path, "w") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in measured.nodes)


def show(measured: Profile, console: Console) -> None:
    """Print a row for each operator type, the slowest nodes, memory, and the floor."""
    images = "1 image" if measured.batch == 1 else f"{measured.batch} images"
    threads = "1 thread" if measured.threads == 1 else f"{measured.threads} threads"
    where = f"{TITLES[measured.runtime]} on this {'GPU' if measured.runtime in GPU else 'CPU'}"
    console.print(f"[bold]{measured.model}[/]: {images}, {threads}, {where}")
    console.print(_table("operator", measured.types))
    several = [row for row in measured.nodes if row.ms > 0][:_SLOWEST]
    console.print(_table("slowest nodes", several))
    console.print("\n".join(_notes(measured)), markup=False)


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(padding=0)
    table.add_column(title, overflow="ellipsis", no_wrap=True)
    table.add_column("in", no_wrap=True)
    for name in ("nodes", "ms", "share", "MMACs", "G/s", "floor", "bound by"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, row.type if title == "operator" else _title(row)))
    return table


def _title(row: Row) -> str:
    """A node that was fused or laid out anew has a name that does not say what it is."""
    return row.name if row.name.startswith(row.type) else f"{row.type} {row.name}"


def _cells(row: Row, name: str) -> tuple[str, ...]:
    return (
        name,
        "int8" if row.precision == "int8" else "fp32",
        str(row.nodes),
        f"{row.ms:.3f}",
        f"{row.share:.1%}",
        f"{row.macs / 1e6:,.1f}" if row.macs else "",
        f"{row.macs / 1e6 / row.ms:,.0f}" if row.macs and row.ms else "",
        f"{row.floor_ms:.3f}",
        row.bound,
    )


def _notes(measured: Profile) -> list[str]:
    machine, memory, mega = measured.machine, measured.memory, 1e6
    whose = "" if measured.runtime == "onnxruntime" else " in ONNX Runtime, whose they are,"
    return [
        f"A run takes {measured.latency_ms:.3f} ms (best {measured.best_ms:.3f}, p95 "
        f"{measured.p95_ms:.3f}), its operators{whose} with the profiler on "
        f"{measured.operators_ms:.3f} ms, for {measured.macs / mega:,.1f} million "
        "multiply-accumulates.",
        f"Memory: file {measured.file_bytes / mega:.2f} MB, weights "
        f"{measured.weight_bytes / mega:.2f} MB; the open model takes {memory.loaded / mega:.1f} "
        f"MB, at the peak {memory.peak / mega:.1f} MB, above {memory.libraries / mega:.0f} MB of "
        "Python and libraries.",
        f"This machine, measured: {machine.int8_macs_per_s / 1e9:,.0f} int8 and "
        f"{machine.float32_macs_per_s / 1e9:,.0f} fp32 giga-multiply-accumulates a second, "
        f"{machine.bytes_per_s / 1e9:,.0f} GB/s on this model's "
        f"{machine.working_set_bytes / mega:.2f} MB.",
        f"The floor at these rates is {measured.floor_ms:.3f} ms"
        + (
            ", of the CPU, not of the GPU."
            if measured.runtime in GPU
            else f": the best run takes {measured.best_ms / measured.floor_ms:.1f} times that."
        ),
    ]
