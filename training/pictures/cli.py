"""`offramp picture cam`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.extras import needs_extra


def cam(
    run: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")],
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="The class to map (default: each exit's prediction)."),
    ] = None,
) -> None:
    """Draw class-activation maps (Grad-CAM) of every exit for image files."""
    with needs_extra("train"):
        from training.pictures.cam import picture_cam
    picture_cam(run, images, output, class_name, say=typer.echo)
