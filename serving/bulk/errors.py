"""Errors of `offramp classify`."""

from __future__ import annotations

from offramp.errors import OfframpError


class BulkError(OfframpError):
    """The arguments name no images, or the output cannot be used."""


class UnansweredError(OfframpError):
    """Some of the images have an error in place of an answer."""

    def __init__(self, failed: int, total: int) -> None:
        """The exit code is 1 if other images were answered, else 2."""
        super().__init__(f"{failed} of {total} images could not be classified.")
        self.exit_code = 1 if failed < total else 2
