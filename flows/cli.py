"""The command line: `visionloop COMMAND`. Heavy imports wait until a command needs them."""

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli_data import data
from flows.cli_edge import edge
from flows.cli_evidence import evidence
from flows.cli_gate import gate
from flows.cli_training import training
from flows.terminal import Json, console, enter_repository
from tasks.errors import VisionloopError


class _Commands(TyperGroup):
    """Turns a user's mistake into one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VisionloopError as error:
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            sys.stderr.write("error: the disk is full; free space and run again\n")
            raise typer.Exit(4) from None


app = typer.Typer(
    cls=_Commands,
    help="Keeps an image classifier good in production.",
    epilog="Example: visionloop init --data photos --yes && visionloop run",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.add_typer(training, name="training")
app.add_typer(edge)
app.add_typer(evidence)
app.add_typer(gate)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        console.print(f"visionloop {version('visionloop')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keeps an image classifier good in production."""


@app.command(
    epilog="Example: visionloop doctor --json | jq '.checks[] | select(.status != \"ok\")'"
)
def doctor(as_json: Json = False) -> None:
    """Say what is wrong with this machine and repository, and how to mend it."""
    from flows.doctor import examine, report, show

    enter_repository()
    checks = examine()
    if as_json:
        console.print_json(data=report(checks))
    else:
        show(checks, console)
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)


@app.command(epilog="Example: visionloop init --data ~/photos            (look, change nothing)")
def init(
    data: Annotated[
        list[str],
        typer.Option(
            help="A folder of class folders, a table (CSV, Parquet), a COCO file, a folder with VOC"
            " annotations, an archive, a bucket (s3://...), torchvision:NAME, or 'digits', the "
            "quickstart. Several are put together."
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(help="Start from conf/presets/PRESET.yaml; chosen by image size when unset."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="The declared classes, as A,B,C; the folders' when unset.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write conf/params.yaml.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write even over changes that git does not have.")
    ] = False,
) -> None:
    """Look at images and write conf/params.yaml for them; a dry run without --yes."""
    from flows.init import as_given, propose, show, write

    sources = [as_given(one) for one in data]
    declared = [label.strip() for label in labels.split(",")] if labels else None
    enter_repository(logs=True)
    proposal = propose(sources, preset, declared)
    show(proposal, console)
    if yes:
        write(proposal, force)
        console.print("wrote conf/params.yaml; next: [bold]visionloop run[/]")
    else:
        console.print("nothing was written; add [bold]--yes[/] to write conf/params.yaml")


@app.command(epilog="Example: visionloop models resnet18 mobilenet_v2 --size 96 --json")
def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Architectures; all when unset.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels; prepare.size when unset.", min=8, max=1024)
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes; those declared, else 10, when unset.", min=2)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the architectures with parameters, multiply-accumulates and latency measured here."""
    enter_repository()
    from flows.models import measure, show

    measured = measure(names or [], size, classes)
    if as_json:
        console.print_json(data=measured.as_json())
    else:
        show(measured, console)


@app.command(epilog="Example: visionloop run --set train.epochs=40 --set train.augment.flip=true")
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a parameter for this run alone; conf/params.yaml stays as it is.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take the images through the whole loop, up to a promoted model."""
    from flows.overrides import parse_overrides
    from tasks.params import load_params

    enter_repository(logs=True)
    values = parse_overrides(overrides or [])
    load_params(overrides=values)  # before the seconds that the libraries take to import
    from flows.loop import run_loop
    from flows.summary import show

    result = run_loop(values)
    if as_json:
        console.print_json(data=result.as_json())
    else:
        show(result, console)


@app.command(epilog="Example: visionloop serve --port 8080")
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; VISIONLOOP_HOST when unset.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port; VISIONLOOP_PORT, else 8000, when unset.", min=0, max=65535),
    ] = None,
) -> None:
    """Serve the promoted model over HTTP, following every promotion."""
    from tasks.params import load_params, load_settings
    from tasks.serving.server import serve as serve_forever

    enter_repository(logs=True)
    given = {"host": host, "port": port}
    update = {name: value for name, value in given.items() if value is not None}
    serve_forever(load_settings().model_copy(update=update), load_params())


@app.command(epilog="Example: visionloop drift --json | jq .outcome")
def drift(as_json: Json = False) -> None:
    """Compare recent predictions with the champion's reference; starts no training."""
    from tasks.monitoring.check import run_check
    from tasks.params import load_params, load_settings

    enter_repository(logs=True)
    found = run_check(load_settings(), load_params())
    if as_json:
        console.print_json(data=found.as_dict())
        return
    from flows.summary import show_drift

    show_drift(found, console)


@app.command(epilog="Example: visionloop promote 3 --force --reason 'the test images are wrong'")
def promote(
    version: Annotated[int, typer.Argument(help="The registered model version.", min=1)],
    force: Annotated[
        bool, typer.Option("--force", help="Past the gate; recorded as a decision by hand.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")] = "not given",
) -> None:
    """Make a registered version the champion, if the gate lets it pass."""
    from flows.promote import promote_version

    enter_repository(logs=True)
    done = promote_version(version, force, reason)
    console.print(f"champion: version {done.champion}, previous: {done.previous or 'none'}")
    console.print(done.reason)
    raise typer.Exit(0 if done.champion == version else 1)


@app.command(epilog="Example: visionloop rollback --reason 'too many complaints'")
def rollback(
    reason: Annotated[
        str, typer.Option(help="Why; kept in the audit trail.")
    ] = "rolled back by hand",
) -> None:
    """Put the previous champion back, after loading and trying it."""
    from flows.promote import roll_back

    enter_repository(logs=True)
    done = roll_back(reason)
    console.print(f"champion: version {done.champion}, previous: {done.previous or 'none'}")


@app.command(epilog="Example: visionloop status --json | jq .champion.version")
def status(as_json: Json = False) -> None:
    """Show the champion, the previous one, the last run, the last drift check, the addresses."""
    from flows.status import gather, show

    enter_repository()
    found = gather()
    if as_json:
        console.print_json(data=found)
    else:
        show(found, console)


@app.command(epilog="Example: VISIONLOOP_PORT=8080 visionloop up")
def up(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every process's log lines.")
    ] = False,
) -> None:
    """Start Prefect, MLflow, a worker and the model server; stop them all with Ctrl-C."""
    from flows.up import up as start_all
    from tasks.params import load_params, load_settings

    enter_repository()
    load_params()
    raise typer.Exit(start_all(load_settings(), verbose))


if __name__ == "__main__":
    app()
