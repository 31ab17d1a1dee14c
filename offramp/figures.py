"""Shared by all pictures: colours, the check of the target path, and writing a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from offramp import __version__
from offramp.errors import PictureError
from offramp.files import check_target, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that are distinguishable with any colour vision (Okabe and Ito 2008).
BLUE, ORANGE, RED = "#0072B2", "#E69F00", "#D55E00"
INK, GREY, PALE = "#333333", "#8C8C8C", "#D9D9D9"
DPI = 120


def check_picture(path: Path) -> None:
    """Raise PictureError or WriteError unless `path` can be the file of a PNG. Call it before any other
    work."""
    if path.suffix.lower() != ".png":
        raise PictureError(f"pictures are PNG files: {path} must end in .png.")
    check_target(path)


def save_png(figure: Figure, path: Path, title: str, source: str) -> None:
    """Write `figure` as the PNG `path` atomically, replacing an existing file.

    `title` says what the picture shows and `source` which data; both are stored in the PNG's text
    metadata. Raises WriteError.
    """
    metadata = {"Title": title, "Source": source, "Software": f"offramp {__version__}"}
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=DPI, metadata=metadata)
