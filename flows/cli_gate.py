"""The command `visionloop gate`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Json, absolute, console, enter_repository

gate = typer.Typer()


@gate.command(
    "gate",
    epilog="Example: visionloop gate theirs/bundle --champion ours/bundle --json | jq .reason",
)
def evaluate(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle's folder; data/bundle when unset.")
    ] = None,
    champion: Annotated[
        Path | None,
        typer.Option(help="The bundle to compare with; the release in production when unset."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask the gate's rules of a bundle, anywhere; promotes nothing. Exits 1 when one blocks."""
    named, against = absolute(bundle), absolute(champion)
    enter_repository(logs=True)
    from flows.gate import evaluate as ask
    from flows.gate import show

    found = ask(named, against)
    if as_json:
        console.print_json(data=found.as_json())
    else:
        show(found, console)
    raise typer.Exit(1 if found.decision.outcome == "block" else 0)
