"""`offramp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.errors import MissingExtraError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")],
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="Where data sets are kept.")
    ] = Path("data"),
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default the recipe's.")
    ] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "1",
) -> None:
    """Write a checkpoint as a bundle that `offramp serve` loads."""
    try:
        from exports.export import export_bundle
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    export_bundle(checkpoint, output, data_root=data, name=name, version=version, say=typer.echo)
