"""Requests of the Open Inference Protocol as raw HTTP, and a check of its errors."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

INFER = "/v2/models/tiny/infer"


HEADER = "Inference-Header-Content-Length"


def assert_error(answer: httpx.Response, status: int, says: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert says in body["error"], body
    assert body["error"].endswith(".")


def request_of(files: list[bytes], **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(file).decode() for file in files]
    tensor = {"name": "image", "shape": [len(files)], "datatype": "BYTES", "data": data}
    return {"inputs": [tensor], **more}


def infer_binary(
    http: httpx.Client, head: dict[str, Any] | bytes, tail: bytes, length: object = None
) -> httpx.Response:
    content = head if isinstance(head, bytes) else json.dumps(head).encode()
    headers = {HEADER: str(len(content) if length is None else length)}
    return http.post(INFER, content=content + tail, headers=headers)


def binary_head(shape: list[Any], datatype: str = "BYTES", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": shape, "datatype": datatype, **more}]}
