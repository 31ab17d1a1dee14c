"""Errors in training that a user can cause and fix."""

from __future__ import annotations

from offramp.errors import OfframpError


class RecipeError(OfframpError):
    """The recipe is missing, malformed or impossible."""


class DataError(OfframpError):
    """The data is missing or damaged."""


class CheckpointError(OfframpError):
    """A checkpoint is missing, unreadable, or does not fit."""


class DivergedError(OfframpError):
    """The loss or a weight is no longer finite."""


class BusyError(OfframpError):
    """Another process is training the same run."""


class StoppedError(OfframpError):
    """The user stopped the run; the exit code is that of a shell for SIGINT."""

    exit_code = 130
