"""Parsing a client's JSON within limits of memory and time."""

from __future__ import annotations

import binascii
from typing import Any

import orjson

from serving.errors import InvalidRequestError

# orjson holds the GIL while it parses, so no other request is answered meanwhile. An image of 224 x 224
# pixels as nested lists has about 201,000 separators.
MAX_VALUES = 250_000
_STARTS = (b",", b"[", b"{", b":")


def parse_json(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """The JSON value in `body`; raises InvalidRequestError if it is not valid or has too many values.

    Values are counted by their separators, before anything is parsed.
    """
    if sum(body.count(start) for start in _STARTS) >= max_values:
        raise InvalidRequestError(f"The JSON holds more than {max_values} values.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError("The body is not valid JSON.") from error


def file_of_base64(number: int, image: object) -> bytes:
    """The file in `image`, number `number` of a request; raises InvalidRequestError."""
    if not isinstance(image, str):
        raise InvalidRequestError(f"Image {number} is not a string of base64.")
    try:
        return binascii.a2b_base64(image, strict_mode=True)
    except ValueError as error:
        raise InvalidRequestError(f"Image {number} is not valid base64.") from error
