"""The command line of what is tried before a long training: `visionloop training COMMAND`."""

import typer

from flows.terminal import Json, console, enter_repository

training = typer.Typer(
    help="Try out the training: learning rates, batch sizes, where the time goes.",
    epilog="Example: visionloop training lr-range",
    no_args_is_help=True,
)


@training.command("lr-range", epilog="Example: visionloop training lr-range --json | jq .highest")
def lr_range(as_json: Json = False) -> None:
    """Train 150 steps at a growing learning rate, and say which rates this training can take."""
    from flows.training import find_rates, show_rates

    enter_repository()
    found = find_rates()
    if as_json:
        console.print_json(data=found)
    else:
        show_rates(found, console)


@training.command("batch-size", epilog="Example: visionloop training batch-size")
def batch_size(as_json: Json = False) -> None:
    """Find the largest batch, a power of two, that fits this machine, and the fastest."""
    from flows.training import find_batch_sizes, show_batch_sizes

    enter_repository()
    found = find_batch_sizes()
    if as_json:
        console.print_json(data=found.as_json())
    else:
        show_batch_sizes(found, console)


@training.command(
    "profile", epilog="Example: visionloop training profile && less data/profile/table.txt"
)
def profile(as_json: Json = False) -> None:
    """Say where the time of a training step goes; writes a table and a trace."""
    from flows.training import find_times, show_times

    enter_repository()
    found = find_times()
    if as_json:
        console.print_json(data={"shares": found})
    else:
        show_times(found, console)
