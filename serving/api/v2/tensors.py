"""Tensors of the Open Inference Protocol, between arrays and bytes or JSON. Pure functions.

Binary data is little-endian and row-major; an element of BYTES is its length as uint32, then itself
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequestError

_LENGTH = struct.Struct("<I")
LITTLE_ENDIAN: dict[str, np.dtype[Any]] = {"INT32": np.dtype("<i4"), "FP32": np.dtype("<f4")}

Tensor = NDArray[Any] | Sequence[bytes]


def split_bytes(content: bytes, count: int) -> list[bytes]:
    """The `count` elements of a BYTES tensor in binary form; raises InvalidRequestError."""
    elements: list[bytes] = []
    at = 0
    while at < len(content) and len(elements) < count:
        start = at + _LENGTH.size
        if start > len(content):
            break
        end = start + _LENGTH.unpack_from(content, at)[0]
        if end > len(content):
            break
        elements.append(content[start:end])
        at = end
    if at != len(content) or len(elements) != count:
        raise InvalidRequestError(
            f"The binary data is not {count} elements, each a length of 4 bytes and as many bytes."
        )
    return elements


def join_bytes(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor in binary form, from its elements in row-major order."""
    return b"".join(part for item in elements for part in (_LENGTH.pack(len(item)), item))


def pixels_of_binary(content: bytes, shape: Sequence[int]) -> NDArray[np.uint8]:
    """A UINT8 tensor from its binary form; raises InvalidRequestError if the size differs."""
    size = math.prod(shape)
    if len(content) != size:
        raise InvalidRequestError(
            f"A UINT8 tensor of the shape {list(shape)} has {size} bytes, not {len(content)}."
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def pixels_of_json(data: object, shape: Sequence[int]) -> NDArray[np.uint8]:
    """A UINT8 tensor from numbers in JSON, in one list or nested as `shape` is.

    Raises InvalidRequestError if lists and shape do not fit, or a value is not an integer 0..255.
    """
    values = _flat(data, shape)
    if not set(map(type, values)) <= {int}:
        raise InvalidRequestError("The data of a UINT8 tensor must be integers from 0 to 255.")
    try:
        return np.frombuffer(bytes(values), dtype=np.uint8).reshape(shape)
    except ValueError as error:
        raise InvalidRequestError(
            "The data of a UINT8 tensor must be integers from 0 to 255."
        ) from error


def _flat(data: object, shape: Sequence[int]) -> list[Any]:
    wrong = InvalidRequestError(f"The data does not have the shape {list(shape)}.")
    if not isinstance(data, list):
        raise wrong
    if len(data) == math.prod(shape) and not (data and isinstance(data[0], list)):
        return data
    level = data
    if len(level) != shape[0]:
        raise wrong
    for size in shape[1:]:
        # Whole levels at a time, in C: a Python loop over a large tensor's values takes too long.
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise wrong
        level = list(itertools.chain.from_iterable(level))
    return level


def to_binary(tensor: Tensor, datatype: str) -> bytes:
    """`tensor` in binary form."""
    if isinstance(tensor, np.ndarray):
        return tensor.astype(LITTLE_ENDIAN[datatype], copy=False).tobytes()
    return join_bytes(tensor)


def to_json(tensor: Tensor) -> list[Any] | NDArray[Any]:
    """`tensor` as one list, row-major; arrays stay arrays, which orjson writes as lists."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).ravel()
    return [item.decode("utf-8") for item in tensor]
