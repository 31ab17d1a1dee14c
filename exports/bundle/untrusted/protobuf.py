"""The fields of a protobuf message of unknown origin, without the protobuf package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class MalformedGraphError(ValueError):
    """The bytes are not a protobuf message with ONNX's field types, or have too many fields."""


class Field(NamedTuple):
    """A field by its number and kind: a number has a `value`, the others lie in [start, end) of the
    message's bytes."""

    number: int
    kind: int
    value: int
    start: int
    end: int


def read_fields(content: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in [at, end) of `content`, in order.

    Raises MalformedGraphError if it is not protobuf, or is encoded in a way that parsers interpret
    differently.
    """
    while at < end:
        tag, at = _varint(content, at, end)
        # A parser that keeps only 32 bits would read another field.
        if tag >= 1 << 32:
            raise MalformedGraphError("it has a field number that is out of range")
        number, kind = tag >> 3, tag & 7
        value, start = 0, at
        if kind == VARINT:
            value, at = _varint(content, at, end)
        elif kind == BYTES:
            size, start = _varint(content, at, end)
            at = start + size
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            raise MalformedGraphError("it has a field of a kind that ONNX does not use")
        if at > end:
            raise MalformedGraphError("it ends within a field")
        yield Field(number, kind, value, start, at)


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """The base-128 number at `at`, and the position after it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedGraphError("it ends within a number, or has one that is too long")
