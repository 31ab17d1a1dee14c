"""Errors that a user's input can cause in exports."""

from __future__ import annotations

from offramp.errors import OfframpError


class BundleError(OfframpError):
    """A bundle is missing, damaged, in another format, or not safe to load."""


class PreprocessingError(OfframpError):
    """A bundle does not say how a stage prepares its image, or an array cannot be compared with that."""


class PolicyError(OfframpError):
    """A policy is malformed or does not fit its bundle."""


class ExportError(OfframpError):
    """A network cannot be exported as requested."""


class TuningError(OfframpError):
    """No policy reaches the goal, or the data cannot be used for tuning."""
