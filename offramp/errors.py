"""The base class of all errors that a user can cause and fix.

Every package derives its own. The message is one sentence that says what is wrong and, if possible,
what to do. The command line prints only the message, and exits with `exit_code`.
"""

from __future__ import annotations


class OfframpError(Exception):
    """An error in a user's request, with the exit code of the process."""

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
    """A file cannot be written; its previous content is kept."""


class PictureError(OfframpError):
    """A picture's data does not exist, or its file cannot be written."""
