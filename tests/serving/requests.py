"""Requests to classify in each form, and checks of the answers."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from tests.serving.conftest import Client

PNG = {"Content-Type": "image/png"}
CLASSIFY = "/v1/classify"


def as_json(files: list[bytes]) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(file).decode() for file in files]}}


def as_multipart(files: list[bytes], field: str = "files") -> dict[str, Any]:
    return {"files": [(field, (f"{i}.png", file, "image/png")) for i, file in enumerate(files)]}


def as_raw(file: bytes) -> dict[str, Any]:
    return {"content": file, "headers": PNG}


def assert_error(answer: httpx.Response, status: int, code: str, says: str = "") -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error", "code"]
    assert body["code"] == code
    assert says in body["error"]
    assert body["error"].endswith(".")
    assert answer.headers["X-Request-ID"]


def metrics(client: Client) -> str:
    return client.get("/metrics").text
