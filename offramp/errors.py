"""The root of every error that a user can cause and mend.

Each package derives its own. The message is one sentence that says what is wrong and, where it can,
what to do; the command line prints it alone and leaves with `exit_code`.
"""

from __future__ import annotations


class OfframpError(Exception):
    """A mistake in what was asked for, with the process's exit code."""

    exit_code = 2


class MissingExtraError(OfframpError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; install it with: pip install 'offramp[{extra}]'"
        )


class ImageError(OfframpError):
    """An image file cannot be decoded, or is larger than allowed."""


class WriteError(OfframpError):
    """A file cannot be written; what stood there before is kept."""


class PictureError(OfframpError):
    """What a picture is to show does not exist, or it cannot be put where it is asked for."""
