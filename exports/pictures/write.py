"""Writing a picture of a bundle as PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from exports.pictures.table import BundleTable, open_table
from offramp.figures import check_picture, save_png


def write_picture(
    bundle: Path,
    output: Path,
    draw: Callable[[BundleTable], Figure],
    title: str,
    say: Callable[[str], None] = print,
) -> None:
    """Write what `draw` makes of the calibration table of `bundle`; `title` is in the file's metadata.

    Raises PictureError, WriteError or BundleError before anything is written.
    """
    check_picture(output)
    data = open_table(bundle)
    save_png(draw(data), output, title, data.source)
    say(str(output))
