"""A server with shadow checks that gets clean images, then changed ones, one request after the other."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.corruptions import Images
from benchmarks.harness.server import png, serving

# Requests between two readings of the status.
EVERY = 100


def measure(bundle: Path, parts: Sequence[tuple[Images, NDArray[np.int64]]]) -> dict[str, Any]:
    """The checks of the first exit while the images of `parts` are sent in their order: readings of the
    agreement's limits and the threshold, and the raises. Every early answer is checked."""
    readings: list[dict[str, Any]] = []
    with serving(bundle, workers=1, shadow_share=1, shadow_max_work=1) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        (model,) = _get(connection, "/v1/models")["models"]
        path = f"/v1/models/{model['name']}/shadow"
        sent = 0
        for images, index in parts:
            for number in index.tolist():
                _classify(connection, png(images[number]))
                sent += 1
                if sent % EVERY == 0:
                    readings.append({"requests": sent, **_reading(_get(connection, path))})
        status = _get(connection, path)["status"]
        connection.close()
    return {
        "promised": status["exits"][0]["promised"],
        "readings": readings,
        "first_raise": next((one["requests"] for one in readings if one["raises"]), None),
        "raises": [one["sentence"] for one in reversed(status["raises"])],
    }


def _reading(answer: dict[str, Any]) -> dict[str, Any]:
    status = answer["status"]
    first = status["exits"][0]
    span = first["span"] or {"low": None, "high": None}
    return {
        "threshold": first["threshold"],
        "low": span["low"],
        "high": span["high"],
        "shadows": [one["shadows"] for one in status["exits"]],
        "raises": len(status["raises"]),
    }


def _classify(connection: http.client.HTTPConnection, file: bytes) -> None:
    connection.request("POST", "/v1/classify", file, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"the server answered {answer.status}: {body.decode()}")


def _get(connection: http.client.HTTPConnection, path: str) -> Any:
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())
