"""Looking up a request's headers in its ASGI scope, without an object for all of them."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes, default: bytes = b"") -> bytes:
    """The value of the first header `name`, which is in lower case; `default` without it."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return default
