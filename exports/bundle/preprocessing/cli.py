"""`offramp preprocess`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exports.options import Layout

if TYPE_CHECKING:
    from exports.bundle.preprocessing.inputs import StageInput


def preprocess(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    bundle: Annotated[
        str | None,
        typer.Option(
            help="A directory, packed file or https://…#sha256=… (default: groceries, which is embedded)."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The PNG to write; one a stage where they see different pixels."
        ),
    ] = None,
    stage: Annotated[
        int | None, typer.Option(min=1, help="The stage to show or to compare with.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare this .npy with what the network takes.")
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="The array's order of axes; default: by its shape.")
    ] = None,
) -> None:
    """Show the pixels that a network sees of a photograph, or say how far your own tensor is from them.

    Exit code 1: the array is not what the network takes; 2: it cannot be compared.
    """
    from exports.bundle.errors import PreprocessingError
    from exports.bundle.preprocessing.run import Photograph, read_array

    if output is None and against is None:
        raise PreprocessingError("there is nothing to do: give -o for an image, or --against.")
    if layout is not None and against is None:
        raise PreprocessingError("--layout is the order of an array's axes; add --against.")
    shown = Photograph.open(photo, bundle)
    if output is not None:
        for stages, file in shown.write(output, stage):
            height, width, _ = stages[0].pixels(shown.image).shape
            typer.echo(f"{file}: {width} x {height} pixels, as seen by {_named(stages)}")
    if against is None:
        return
    array = read_array(against)
    chosen = shown.stage_for(array, stage)
    comparison = shown.compare(array, layout, chosen)
    typer.echo(f"{against} against {_named([chosen])}:")
    for line in comparison.lines():
        typer.echo(f"  {line}")
    if not comparison.agrees:
        raise typer.Exit(1)


def _named(stages: list[StageInput]) -> str:
    from exports.bundle.untrusted.safe_files import one_line

    return ", ".join(f"stage {one.stage} ({one_line(one.name)})" for one in stages)
