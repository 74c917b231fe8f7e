"""The command `visionloop gate`."""

from typing import Annotated

import typer

from flows.cli_evidence import BUNDLE
from flows.terminal import Json, console, enter_repository

gate = typer.Typer()


@gate.command(
    "gate",
    epilog="Example: visionloop gate theirs/bundle --champion ours/bundle --json | jq .reason",
)
def evaluate(
    bundle: Annotated[str | None, typer.Argument(help=f"{BUNDLE}; data/bundle when unset.")] = None,
    champion: Annotated[
        str | None,
        typer.Option(
            help="The bundle to compare with, named alike; the release in production when unset."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask the gate's rules of a bundle, anywhere; promotes nothing. Exits 1 when one blocks."""
    from flows.bundle import place_of
    from flows.gate import evaluate as ask
    from flows.gate import show

    named, against = (place_of(name) if name else None for name in (bundle, champion))
    enter_repository(logs=True)
    found = ask(named, against)
    if as_json:
        console.print_json(data=found.as_json())
    else:
        show(found, console)
    raise typer.Exit(1 if found.decision.outcome == "block" else 0)
