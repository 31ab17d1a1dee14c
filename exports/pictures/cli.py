"""`offramp picture exits` and `offramp picture calibration`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.extras import needs_extra

Bundle = Annotated[str, typer.Argument(help="A directory, a packed file, or https://…#sha256=…")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")]


def exits(bundle: Bundle, output: Output) -> None:
    """Draw how a bundle's exits agree, their accuracy, and what their ensemble gains."""
    from exports.bundle.resolve import resolve_bundle

    with needs_extra("train"):
        from exports.pictures.exits import draw_exits
        from exports.pictures.write import write_picture
    write_picture(resolve_bundle(bundle), output, draw_exits, "The exits compared", say=typer.echo)


def calibration(bundle: Bundle, output: Output) -> None:
    """Draw a bundle's reliability diagrams: confidence against accuracy, before and after temperature."""
    from exports.bundle.resolve import resolve_bundle

    with needs_extra("train"):
        from exports.pictures.calibration import draw_calibration
        from exports.pictures.write import write_picture
    title = "Reliability before and after temperature"
    write_picture(resolve_bundle(bundle), output, draw_calibration, title, say=typer.echo)
