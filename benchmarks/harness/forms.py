"""Request and answer formats of our server and of those it is compared with."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from benchmarks.harness.wire import Reply

BOUNDARY = "offramp-benchmark"
JSON_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Form:
    """The request's media type, its further header lines, its body made of an image file, and how
    the class's index and the exit are read from the reply."""

    kind: str
    headers: str
    body: Callable[[bytes], bytes]
    read: Callable[[Reply], tuple[int, int]]


def _file(content: bytes) -> bytes:
    return content


def _listed(content: bytes) -> bytes:
    return orjson.dumps({"images": [base64.b64encode(content).decode()]})


def _predictions(reply: Reply) -> tuple[int, int]:
    (found,) = reply.json()["predictions"]
    return found["index"], found["exit"]


def _first(reply: Reply) -> tuple[int, int]:
    found = reply.json()["predictions"][0]
    return found["index"], found["exit"]


def _list(reply: Reply) -> tuple[int, int]:
    (found,) = reply.json()
    return found["index"], found["exit"]


def _tensors(reply: Reply) -> tuple[int, int]:
    """The Open Inference Protocol with binary tensors behind the JSON, in its order."""
    length = int(reply.headers[JSON_LENGTH])
    values, at = {}, length
    for output in json.loads(reply.body[:length])["outputs"]:
        kind = {"INT64": "<q", "FP32": "<f"}[output["datatype"]]
        (values[output["name"]],) = struct.unpack_from(kind, reply.body, at)
        at += output["parameters"]["binary_data_size"]
    return values["index"], values["exit"]


FORMS = {
    "offramp": Form("image/png", "", _file, _predictions),
    # Files are whole bodies, of several images each.
    "multipart": Form(f"multipart/form-data; boundary={BOUNDARY}", "", _file, _first),
    # BentoML's batches: a list of inputs; a client sends one.
    "list": Form("application/json", "", _listed, _list),
    # Triton's raw binary request: one tensor's bytes.
    "tensor": Form(
        "application/octet-stream", "Inference-Header-Content-Length: 0\r\n", _file, _tensors
    ),
}
