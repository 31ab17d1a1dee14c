"""Detects ONNX files that keep weights in another file, without the onnx package.

A tensor may name another file that holds its data. onnxruntime follows such a name even for a graph
given as bytes, relative to the working directory. A graph with the right hash could then load weights
from any file there. The graphs of a bundle must therefore hold all their data.

An ONNX file is a protobuf message. Only the fields through which tensors can be reached are followed.
Field numbers: onnx.proto of ONNX 1.23.
"""

from __future__ import annotations

# For each message type the fields that may contain tensors: field number -> message type.
TENSOR_FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# A hundred times the fields of a deep network; bounds the time of the search.
MAX_FIELDS = 2_000_000
# The signature of onnxruntime's own format, which is not supported here.
ORT_FORMAT = b"ORTM"


class MalformedGraphError(ValueError):
    """The bytes are not a protobuf message with ONNX's field types, or have too many fields."""


def has_external_data(content: bytes) -> bool:
    """Whether any tensor of the ONNX file `content` keeps its data in another file.

    Raises MalformedGraphError if `content` is not protobuf, is encoded in a way that parsers interpret
    differently, or has more than MAX_FIELDS fields.
    """
    if content[4:8] == ORT_FORMAT:
        raise MalformedGraphError("it is in onnxruntime's own format")
    pending = [("ModelProto", 0, len(content))]
    fields = 0
    while pending:
        message, at, end = pending.pop()
        while at < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise MalformedGraphError(f"it has more than {MAX_FIELDS} fields")
            tag, at = _varint(content, at, end)
            # A parser that keeps only 32 bits would read another field.
            if tag >= 1 << 32:
                raise MalformedGraphError("it has a field number that is out of range")
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, at = _varint(content, at, end)
                if message == "TensorProto" and number == DATA_LOCATION and value != 0:
                    return True
                continue
            if kind == BYTES:
                size, start = _varint(content, at, end)
                at = start + size
            elif kind in (FIXED32, FIXED64):
                start, at = at, at + (4 if kind == FIXED32 else 8)
            else:
                raise MalformedGraphError("it has a field of a kind that ONNX does not use")
            if at > end:
                raise MalformedGraphError("it ends within a field")
            if kind == BYTES and message == "TensorProto" and number == EXTERNAL_DATA:
                return True
            if kind == BYTES and number in TENSOR_FIELDS[message]:
                pending.append((TENSOR_FIELDS[message][number], start, at))
    return False


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
