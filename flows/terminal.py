"""What every command shares: where it prints, --json, and the repository it works in."""

import os
from pathlib import Path
from typing import Annotated, overload

import typer
from rich.console import Console

from tasks.errors import VisionloopError
from tasks.step import configure_logging

console = Console(highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def enter_repository(logs: bool = False) -> None:
    """Make the nearest Visionloop repository, this directory or above, the current directory."""
    if logs:
        configure_logging()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            os.chdir(folder)
            return
    raise VisionloopError(
        f"{here} is not in a Visionloop repository (no dvc.yaml and conf/ here or above); "
        "change to your clone first"
    )


@overload
def absolute(path: Path) -> Path: ...
@overload
def absolute(path: None) -> None: ...
@overload
def absolute(path: Path | None) -> Path | None: ...
def absolute(path: Path | None) -> Path | None:
    """As it was meant, before the repository's root becomes the current directory."""
    return None if path is None else Path(os.path.abspath(path.expanduser()))
