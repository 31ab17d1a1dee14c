"""What the pictures share: their colours, where they may go, and that they appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from offramp import __version__
from offramp.errors import PictureError
from offramp.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that people with any colour vision tell apart (Okabe and Ito 2008).
BLUE, ORANGE, RED = "#0072B2", "#E69F00", "#D55E00"
INK, GREY, PALE = "#333333", "#8C8C8C", "#D9D9D9"
DPI = 120


def check_target(path: Path) -> None:
    """Raise PictureError unless a PNG can be put at `path`; asked before any work is done."""
    if path.suffix.lower() != ".png":
        raise PictureError(f"pictures are PNG files: {path} must end in .png.")
    if not path.parent.is_dir():
        raise PictureError(f"{path} cannot be written: there is no directory {path.parent}.")
    if path.is_dir():
        raise PictureError(f"{path} cannot be written: it is a directory.")


def save_png(figure: Figure, path: Path, title: str, source: str) -> None:
    """Write `figure` as the PNG `path` in one step, replacing what is there.

    `title` and `source`, what the picture shows and of what, are kept in the file's own text.
    Raises WriteError if the disk refuses.
    """
    about = {"Title": title, "Source": source, "Software": f"offramp {__version__}"}
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=DPI, metadata=about)
