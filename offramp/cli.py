"""The command `offramp`: one subcommand from each wing, loaded without its heavy imports."""

from __future__ import annotations

import sys

import typer

from exports.cli import export, pack
from exports.pictures.cli import calibration, exits
from exports.tuning.cli import tune
from offramp.errors import OfframpError
from serving.cli import classify, serve
from serving.inspect_cli import inspect
from training.cli import recipe, train
from training.pictures.cli import cam
from training.table.cli import table

app = typer.Typer(
    name="offramp",
    help="Train, export and serve image classifiers that answer easy images early.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, recipe, table, export, tune, inspect, pack, serve, classify):
    app.command()(command)

picture = typer.Typer(help="Draw what a network does, as a PNG.", no_args_is_help=True)
for drawing in (cam, exits, calibration):
    picture.command()(drawing)
app.add_typer(picture, name="picture")


def main() -> None:
    """Run the command line; a user's error is one sentence on stderr and its exit code."""
    try:
        app()
    except OfframpError as error:
        print(f"offramp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a directory that may not be written
        print(f"offramp: {error}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
