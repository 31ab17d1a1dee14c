"""LitServe, one image at a time or in its dynamic batches.

- `workers_per_device` is the number of cores, as its documentation advises for CPUs; as many API servers, its
  default.
- `fast_queue` (ZeroMQ between the processes), which it documents as faster, unless `--plain-queue` is given.
- `batch_timeout` is 2 ms, about the time of one image; 0 would be a busy loop.
- `timeout` refuses (504) requests that waited as long as ours may.
- The body is the file itself, through FastAPI; LitServe's default is JSON or a form.
"""

# No `from __future__ import annotations`: LitServe passes on the annotation of `request` unevaluated.

import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from benchmarks.peers.model import FullNetwork, Setup
from offramp.images import Pixels

BATCH_TIMEOUT = 0.002


class Single(litserve.LitAPI):
    """One image at a time."""

    def setup(self, device: str) -> None:
        """Open the session in this worker."""
        self.network = FullNetwork(Setup.read().model)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/png")]) -> Pixels:
        """A file's pixels."""
        return self.network.decode(request)

    def predict(self, x: Pixels) -> dict[str, Any]:
        """One image's prediction."""
        return self.network.predict([x])[0]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """The answer's JSON."""
        return {"predictions": [output]}


class Batched(Single):
    """Several images at a time."""

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        """Unchanged: `FullNetwork.predict` stacks them."""
        return inputs

    def predict(self, x: list[Pixels]) -> list[dict[str, Any]]:
        """A prediction for each image."""
        return self.network.predict(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Unchanged: there is one output per image."""
        return output


if __name__ == "__main__":
    given = Setup.read()
    api = (
        Batched(max_batch_size=given.batch, batch_timeout=BATCH_TIMEOUT, api_path="/classify")
        if given.batch > 1
        else Single(api_path="/classify")
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=given.workers,
        fast_queue="--plain-queue" not in sys.argv,
        timeout=given.wait_ms / 1000,
    )
    server.run(
        host="127.0.0.1",
        port=given.port,
        access_log=False,
        log_level="critical",
        generate_client_file=False,
    )
