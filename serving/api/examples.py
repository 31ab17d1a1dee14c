"""Example images and bodies, for OpenAPI and for the commands that `offramp serve` prints."""

from __future__ import annotations

import base64
import io

from PIL import Image


def sample_image(width: int, height: int) -> str:
    """A small PNG of `width` x `height` pixels as base64: an orange box on blue."""
    image = Image.new("P", (width, height), 0)
    image.putpalette([40, 90, 160, 240, 150, 30])
    image.paste(1, (width // 4, height // 3, width - width // 4, height))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True, bits=1)
    return base64.b64encode(content.getvalue()).decode("ascii")
