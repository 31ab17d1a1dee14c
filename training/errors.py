"""What can go wrong in training through the user's input."""

from __future__ import annotations

from offramp.errors import OfframpError


class RecipeError(OfframpError):
    """The recipe is missing, malformed, or asks for something impossible."""


class DataError(OfframpError):
    """The data is missing or not what it should be."""


class CheckpointError(OfframpError):
    """A checkpoint is missing, unreadable, or does not fit."""


class DivergedError(OfframpError):
    """The loss stopped being a number."""


class BusyError(OfframpError):
    """Another process works on the same run."""


class StoppedError(OfframpError):
    """The user stopped the run; the exit code is the shell's for an interrupt."""

    exit_code = 130
