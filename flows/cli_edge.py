"""The commands for models on devices: `visionloop export`, `visionloop profile`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.terminal import Json, absolute, console, enter_repository

edge = typer.Typer()


@edge.command(epilog="Example: visionloop export --target edge --output device && ls device")
def export(
    output: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    bundle: Annotated[
        Path | None,
        typer.Argument(help="A bundle's folder; the release in production, else data/bundle."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="edge: onnxruntime, numpy and pillow alone; converted: openvino, executorch, "
            "tflite, coreml."
        ),
    ] = "edge",
    images: Annotated[
        Path | None,
        typer.Option(help="Images to verify a conversion on; the validation split when unset."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, say what would be written, write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a bundle as a folder that a device runs, or convert it for another runtime."""
    named, out, given = absolute(bundle), absolute(output), absolute(images)
    enter_repository(logs=True)
    from flows.export import export as write
    from flows.export import show

    done = write(named, target, out, given, force, dry_run)
    if as_json:
        console.print_json(data=done.as_json())
    else:
        show(done, console)


@edge.command(epilog="Example: visionloop profile --json | jq '.types[] | {type, ms, share}'")
def profile(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="A bundle's folder or an ONNX file; the release in production, else data/bundle."
        ),
    ] = None,
    runtime: Annotated[
        Literal["onnxruntime", "openvino", "cuda", "tensorrt"] | None,
        typer.Option(help="What to time whole runs and memory on; the bundle's when unset."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads; the bundle's when unset.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option(help="Images of a run.", min=1)] = 1,
    runs: Annotated[int, typer.Option(help="Timed runs.", min=10)] = 100,
    csv: Annotated[
        Path | None, typer.Option(help="Write a row for each node.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Say where a model's time goes, by operator, and how near to this machine's best it is."""
    named, table = absolute(bundle), absolute(csv)
    enter_repository()
    from flows.profile import measure, show, write_csv

    measured = measure(named, runtime, threads, batch, runs)
    if table is not None:
        write_csv(measured, table)
    if as_json:
        console.print_json(data=measured.as_json())
    else:
        show(measured, console)
