"""What can go wrong with pictures through the user's input."""

from __future__ import annotations

from offramp.errors import OfframpError


class PictureError(OfframpError):
    """What a picture is to show does not exist, or it cannot be put where it is asked for."""
