"""Hostile requests, as the bytes that are sent."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

from tests.serving.hostile.images import honest

CLASSIFY = "/v1/classify"
INFER = "/v2/models/tiny/infer"
INDEX = "/v2/repository/index"
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

Request = tuple[str, str, dict[str, str], bytes]


def inference(change: str, tensor: dict[str, object], **more: object) -> Request:
    """An inference request whose tensor is wrong in some way."""
    good = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [_file()]}
    return change, INFER, {}, json.dumps({"inputs": [good | tensor], **more}).encode()


def _file() -> str:
    return base64.b64encode(honest()["png"]).decode()


def multipart() -> Iterator[Request]:
    """Forms that do not end, nest, or have too much of something."""
    kind = {"Content-Type": FORM}
    file = honest()["png"]
    for name, body in {
        "no end": PART + file,
        "no parts": b"--x--\r\n",
        "no headers": b"--x\r\n\r\n" + file + b"\r\n--x--\r\n",
        "many parts": (PART + b"a\r\n") * 9_000 + b"--x--\r\n",
        "many headers": b"--x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        "a long header": b"--x\r\nA: " + b"b" * 900_000 + b"\r\n\r\n",
        "a header without end": b"--x\r\n" + b"A" * 900_000,
        "almost boundaries": PART + b"\r\n--y" * 200_000,
        "line ends": PART + b"\r\n" * 450_000,
        "returns": PART + b"\r" * 900_000,
        "a nested form": PART.replace(
            b"\r\n\r\n", b"\r\nContent-Type: " + FORM.encode() + b"\r\n\r\n"
        )
        + PART
        + file
        + b"\r\n--x--\r\n--x--\r\n",
        "a field": b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\na\r\n--x--\r\n',
        "a path as name": PART.replace(b"a.png", b"../../etc/passwd") + b"\r\n--x--\r\n",
        "zeros in the name": PART.replace(b"a.png", b"\0\0") + b"a\r\n--x--\r\n",
        "a wild charset": b"--x\r\nContent-Disposition: form-data; name*=utf-7''files\r\n\r\n\r\n--x--",
        "transfer encoding": PART.replace(
            b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: gzip\r\n\r\n"
        )
        + b"a\r\n--x--\r\n",
        "what follows the end": b"--x--\r\n" + b"z" * 900_000,
    }.items():
        yield f"form with {name}", CLASSIFY, kind, body
    for boundary in ("", "x" * 5000, "\\x", '"', "x;x"):
        header = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        yield f"boundary {boundary[:9]!r}", CLASSIFY, header, PART + file
    yield "form without boundary", CLASSIFY, {"Content-Type": "multipart/form-data"}, PART
    for charset in ("idna", "utf-16", "no-such", "punycode"):
        header = {"Content-Type": f"{FORM}; charset={charset}"}
        yield f"charset {charset}", CLASSIFY, header, PART + b"a\r\n--x--\r\n"


def documents() -> Iterator[tuple[str, bytes]]:
    """JSON that is deep, wide, or not JSON."""
    yield "deep lists", b"[" * 400_000
    yield "deep objects", b'{"a":' * 150_000
    yield "closed deep lists", b"[" * 900 + b"]" * 900
    yield "many numbers", b"[" + b"0," * 440_000 + b"0]"
    yield "many lists", b"[" + b"[]," * 300_000 + b"[]]"
    yield "many keys", b"{" + b",".join(b'"%d":0' % i for i in range(80_000)) + b"}"
    yield "a huge integer", b'{"images":' + b"9" * 900_000 + b"}"
    yield "a huge exponent", b'{"images":[1e999999999]}'
    yield "escapes", b'{"images":["' + b"\\u0000" * 150_000 + b'"]}'
    yield from {
        "not a number": b'{"images":[NaN]}',
        "infinity": b'{"images":[-Infinity]}',
        "a lone surrogate": b'{"images":["\\ud800"]}',
        "wrong utf-8": b'{"images":["\xc0\x80"]}',
        "a byte order mark": b'\xef\xbb\xbf{"images":[]}',
        "utf-16": '{"images":[]}'.encode("utf-16"),
        "a comment": b'{"images":[] /* */}',
        "a trailing comma": b'{"images":[],}',
        "two values": b"{}{}",
        "a bare word": b"images",
        "a zero byte": b'{"images":[]}\0',
        "nothing": b"",
        "a string": b'"images"',
        "a null": b"null",
    }.items()


def jsons() -> Iterator[Request]:
    """Each of `documents` at each address that reads JSON, and some for one address only."""
    for name, body in documents():
        for path in (CLASSIFY, INFER, INDEX):
            yield f"{name} at {path}", path, {"Content-Type": "application/json"}, body
    json_type = {"Content-Type": "application/json"}
    twice = b'{"images":[],"images":["aGk="]}'
    yield "a key twice", CLASSIFY, json_type, twice
    many = json.dumps({"images": ["" for _ in range(5000)]}).encode()
    yield "many empty images", CLASSIFY, json_type, many
    path = json.dumps({"images": ["/etc/passwd", "file:///etc/passwd"]}).encode()
    yield "paths as images", CLASSIFY, json_type, path


def inferences() -> Iterator[Request]:
    """Inference requests in which one field is wrong."""
    for size in (-1, 0, 2**31, 2**63 - 1, 2**64, 10**40, 1.5, "8", True, None, [], {}):
        yield inference(f"size {size}", {"parameters": {"binary_data_size": size}, "data": None})
    for shape in (
        [],
        [0],
        [-1],
        [2**63 - 1],
        [2**64],
        [1, 8, 8, 3],
        [1] * 1000,
        [[1]],
        {},
        None,
        "1",
    ):
        yield inference(f"shape {str(shape)[:30]}", {"shape": shape})
        yield inference(f"pixels of shape {str(shape)[:30]}", {"shape": shape, "datatype": "UINT8"})
    for datatype in ("FP16", "BF16", "INT64", "", "x" * 100_000, "\0", None, 5):
        yield inference(f"datatype {str(datatype)[:9]!r}", {"datatype": datatype})
    ragged: list[object] = [[[0, 0, 0]] * 8] * 7 + [[[0, 0]]]
    for data in (
        ragged,
        [[[[]]]],
        [-1] * 192,
        [1e300] * 192,
        [256] * 192,
        ["0"] * 192,
        [[0] * 192],
    ):
        yield inference("pixel data", {"shape": [1, 8, 8, 3], "datatype": "UINT8", "data": data})
    for name in ("/etc/passwd", "image\0", "x" * 100_000, 0, None):
        yield inference(f"name {str(name)[:9]!r}", {"name": name})
        yield inference("output", {}, outputs=[{"name": name}])
    for key in ("threshold", "max_exit", "mode", "timeout", "priority", "binary_data_output"):
        for value in (-1, 10**40, "x", [], {}, 1e308):
            yield inference(f"{key} {value}", {}, parameters={key: value})
    for identifier in ("x" * 100_000, "\0", "</script>", 5, [], {}):
        yield inference(f"id {str(identifier)[:9]!r}", {}, id=identifier)
    head = json.dumps({"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES"}]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    for name, tail in {
        "a length beyond the body": struct.pack("<I", 2**32 - 1) + b"a" * 100,
        "lengths of zero": bytes(900_000),
        "half a length": b"\0",
        "one of two": struct.pack("<I", 1) + b"a",
    }.items():
        yield name, INFER, length, head + tail
    for value in ("-1", "1" * 4000, "0x10", "1.0", "99999999", "1,2"):
        yield f"header {value[:9]}", INFER, {"Inference-Header-Content-Length": value}, head


def requests() -> Iterator[Request]:
    """All hostile requests."""
    yield from multipart()
    yield from jsons()
    yield from inferences()


def wire() -> Iterator[tuple[str, bytes]]:
    """Whole connections: almost HTTP, or HTTP that two parsers could read differently."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
    yield "noise", bytes(range(256)) * 8
    yield "tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    yield "http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "a negative length", head + b"Content-Length: -5\r\n\r\nabcde"
    yield "two lengths", head + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nabcde"
    yield "a length of many digits", head + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"
    yield (
        "length and chunks",
        (head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    )
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    yield "a chunk of wrong size", chunked + b"xyz\r\nabc\r\n0\r\n\r\n"
    yield "a negative chunk", chunked + b"-1\r\nabc\r\n0\r\n\r\n"
    yield "a chunk beyond counting", chunked + b"f" * 40 + b"\r\nabc\r\n0\r\n\r\n"
    yield "more than allowed in chunks", chunked + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 40
    yield "one byte a chunk", chunked + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"
    yield "a path of many bytes", b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    yield "a header without end", b"GET / HTTP/1.1\r\nA: " + b"b" * 300_000
