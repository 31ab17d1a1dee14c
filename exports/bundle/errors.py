"""What can go wrong with bundles and policies through the user's input."""

from __future__ import annotations

from offramp.errors import OfframpError


class BundleError(OfframpError):
    """A bundle is missing, damaged, of another format, or not safe to load."""


class PolicyError(OfframpError):
    """A policy is malformed or does not fit its bundle."""


class ExportError(OfframpError):
    """An export was refused."""


class TuningError(OfframpError):
    """A goal that no policy reaches, or data that cannot be tuned on."""
