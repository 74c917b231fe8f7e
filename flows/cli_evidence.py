"""`visionloop report | compare`: the evidence on a bundle, and two bundles side by side."""

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Json, console, enter_repository

evidence = typer.Typer()
BUNDLE = "A bundle's folder, a version, or champion, previous, challenger"
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


@evidence.command(epilog="Example: visionloop report champion --open")
def report(
    bundle: Annotated[str | None, typer.Argument(help=f"{BUNDLE}; data/bundle when unset.")] = None,
    show_page: Open = False,
    as_json: Json = False,
) -> None:
    """Verify a bundle and say what its evaluation report says first, and where it is."""
    from flows.bundle import place_of
    from flows.report import find, show
    from tasks.params import load_settings

    place = place_of(bundle) if bundle else None
    enter_repository()
    found = find(place, load_settings())
    if as_json:
        console.print_json(data=found.as_json())
    else:
        show(found, console)
    if show_page:
        _look(found.pages.report)


@evidence.command(epilog="Example: visionloop compare champion data/bundle --html comparison.html")
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"{BUNDLE}.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What would take its place.")],
    html: Annotated[
        Path | None, typer.Option(help="Where to write the page; below .visionloop when unset.")
    ] = None,
    show_page: Open = False,
    as_json: Json = False,
) -> None:
    """Compare two models on the same frozen test images, figure by figure, image by image."""
    from flows.bundle import place_of, title_of
    from flows.compare import compare as compare_two
    from flows.compare import show
    from tasks.params import load_settings

    places = place_of(first), place_of(second)
    page = html.resolve() if html else None  # of where the command was typed
    enter_repository(logs=not as_json)
    result = compare_two(places, (title_of(first), title_of(second)), page, load_settings())
    if as_json:
        console.print_json(data=result.as_json())
    else:
        show(result, console)
    if show_page:
        _look(result.page)


def _look(page: Path) -> None:
    from flows.report import look

    if (message := look(page)) is not None:
        typer.echo(message, err=True)
