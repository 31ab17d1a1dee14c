"""LitServe, one image at a time or in its dynamic batches.

- `workers_per_device` is the number of cores, as its documentation advises for CPUs; as many API servers, its
  own choice if nobody sets one.
- `fast_queue` (ZeroMQ between the processes), which it calls quicker, unless `--plain-queue` is given.
- `batch_timeout` is 2 ms, about what one image takes; 0 would be a loop that never sleeps.
- `timeout` turns away (504) who has waited for as long as ours may.
- The body is the file itself, by FastAPI's own means; LitServe's default is JSON or a form.
"""

# No `from __future__ import annotations`: LitServe hands the annotation of `request` on as it is.

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
        """`FullNetwork.predict` puts them together itself."""
        return inputs

    def predict(self, x: list[Pixels]) -> list[dict[str, Any]]:
        """A prediction for each image."""
        return self.network.predict(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """They come apart already."""
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
