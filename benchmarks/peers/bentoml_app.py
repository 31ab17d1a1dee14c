"""BentoML, one image at a time or in its adaptive batches.

- `workers` is the number of cores: processes that share the port, each with a session and a batcher.
- One at a time, the body is the file itself (a root input of bytes, so nothing is written to disk), and
  `max_concurrency` refuses (429) what would wait longer than in our server, as far as a number can say.
- Batched, an input must be a list: JSON with the file in base64, cheaper here than a form, which writes every
  file to disk. `max_latency_ms`, within which its batcher answers or refuses (503), is the time limit.
- Access log and metrics are off; its tracing middleware cannot be turned off.
"""

from __future__ import annotations

import base64
from typing import Any

import bentoml

from benchmarks.peers.model import FullNetwork, Setup

SETUP = Setup.read()
# Twice the connections of the closed loop, at 1.5 ms each about half of 100 ms.
MAX_CONCURRENCY = 32
SERVICE: dict[str, Any] = {
    "workers": SETUP.workers,
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}


@bentoml.service(**SERVICE, traffic={"max_concurrency": MAX_CONCURRENCY})
class Single:
    """One image at a time."""

    def __init__(self) -> None:
        self.network = FullNetwork(SETUP.model)

    @bentoml.api(route="/classify")
    def classify(self, image: bytes, /) -> dict[str, Any]:
        """One image file, one prediction."""
        return {"predictions": self.network.predict([self.network.decode(image)])}


@bentoml.service(**SERVICE)
class Batched:
    """Several images at a time."""

    def __init__(self) -> None:
        self.network = FullNetwork(SETUP.model)

    @bentoml.api(
        route="/classify",
        batchable=True,
        # It must be more than one, even if the other service runs.
        max_batch_size=max(2, SETUP.batch),
        max_latency_ms=2 * int(SETUP.wait_ms),
    )
    def classify(self, images: list[str]) -> list[dict[str, Any]]:
        """A prediction for each image file in base64."""
        decoded = [self.network.decode(base64.b64decode(image)) for image in images]
        return self.network.predict(decoded)
