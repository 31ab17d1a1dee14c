"""The command `offramp`. Subcommands import torch, onnx and the server only when they run."""

from __future__ import annotations

import sys

import typer

from exports.bundle.preprocessing.cli import preprocess
from exports.cli import export, pack
from exports.front.cli import front
from exports.imported.cli import cascade
from exports.pictures.cli import calibration, exits
from exports.tuning.cli import tune
from offramp.errors import OfframpError
from serving.bulk.cli import classify
from serving.cli import serve
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
for command in (
    *(train, recipe, table, export, cascade, front, tune, inspect, pack, preprocess, serve),
    classify,
):
    app.command()(command)

picture = typer.Typer(help="Draw what a network does, as a PNG.", no_args_is_help=True)
for picture_command in (cam, exits, calibration):
    picture.command()(picture_command)
app.add_typer(picture, name="picture")


def main() -> None:
    """Run the command line. A user's error prints one sentence to stderr and sets the exit code."""
    try:
        app()
    except OfframpError as error:
        print(f"offramp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a directory without write permission
        print(f"offramp: {error}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
