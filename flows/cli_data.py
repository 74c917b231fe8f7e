"""The command line of the data set: `visionloop data COMMAND`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Json, console, enter_repository

data = typer.Typer(
    help="The data set: review what was flagged or is doubted, compare versions, verify, pull.",
    epilog="Example: visionloop data diff HEAD",
    no_args_is_help=True,
)


@data.command("review", epilog="Example: visionloop data review && $EDITOR data/review.csv")
def data_review(as_json: Json = False) -> None:
    """Write the flagged images to data/review.csv, to be kept, dropped or relabelled by hand."""
    from flows.review import show, write_sheet

    enter_repository()
    asked = write_sheet()
    if as_json:
        console.print_json(data=asked.as_json())
    else:
        show(asked, console)


@data.command("suspects", epilog="Example: visionloop data suspects --limit 100 --write")
def data_suspects(
    write: Annotated[
        bool, typer.Option("--write", help="Add them to data/review.csv; else only say so.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="The worst so many; all when unset.", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the labels that cross-validation doubts, the worst first, to be reviewed by hand."""
    from flows.suspects import export, show

    enter_repository()
    found = export(limit, write)
    if as_json:
        console.print_json(data=found.as_json())
    else:
        show(found, console)


@data.command(
    "diff",
    epilog="Example: visionloop data diff v1.0 HEAD --html difference.html && open difference.html",
)
def data_diff(
    before: Annotated[
        str, typer.Argument(metavar="REV1", help="A branch, tag or commit: the data before.")
    ],
    after: Annotated[
        str | None,
        typer.Argument(metavar="[REV2]", help="The data after; the working tree's when unset."),
    ] = None,
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with example images.", dir_okay=False)
    ] = None,
) -> None:
    """Say which images came, went, changed label or changed split between two revisions."""
    from flows.data import compare, print_json, show_diff, write_page

    page = html.expanduser().absolute() if html else None
    enter_repository()
    difference = compare(before, after)
    if page is not None:
        write_page(difference, page)
    if as_json:
        print_json(difference)
    else:
        show_diff(difference, console, page)


Jobs = Annotated[
    int | None, typer.Option(help="Files at a time; by the processors when unset.", min=1)
]


@data.command("verify", epilog="Example: visionloop data verify --repair")
def data_verify(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Fetch damaged files again, replace edited outputs."),
    ] = False,
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """Hash all data again, in DVC's cache and the workspace, against dvc.lock."""
    from flows.data import check_data

    enter_repository(logs=True)
    raise typer.Exit(check_data("repair" if repair else "look", jobs, as_json, console))


@data.command("pull", epilog="Example: visionloop data pull --jobs 16")
def data_pull(jobs: Jobs = None, as_json: Json = False) -> None:
    """Fetch missing and damaged data from the DVC remote, hash all, and check it out."""
    from flows.data import check_data

    enter_repository(logs=True)
    raise typer.Exit(check_data("pull", jobs, as_json, console))
