"""Detects ONNX files that keep weights in another file, without the onnx package.

A tensor may name another file that holds its data. onnxruntime follows such a name even for a graph
given as bytes, relative to the working directory. A graph with the right hash could then load weights
from any file there. The graphs of a bundle must therefore hold all their data.

An ONNX file is a protobuf message. Only the fields through which tensors can be reached are followed.
Field numbers: onnx.proto of ONNX 1.23.
"""

from __future__ import annotations

from exports.bundle.untrusted.protobuf import BYTES, VARINT, MalformedGraphError, read_fields

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
# A hundred times the fields of a deep network; bounds the time of the search.
MAX_FIELDS = 2_000_000
# The signature of onnxruntime's own format, which is not supported here.
ORT_FORMAT = b"ORTM"


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
        for field in read_fields(content, at, end):
            fields += 1
            if fields > MAX_FIELDS:
                raise MalformedGraphError(f"it has more than {MAX_FIELDS} fields")
            if message == "TensorProto":
                located = field.kind == VARINT and field.number == DATA_LOCATION
                if located and field.value != 0:
                    return True
                if field.kind == BYTES and field.number == EXTERNAL_DATA:
                    return True
            if field.kind == BYTES and field.number in TENSOR_FIELDS[message]:
                pending.append((TENSOR_FIELDS[message][field.number], field.start, field.end))
    return False
