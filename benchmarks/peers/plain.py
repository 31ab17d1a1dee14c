"""FastAPI and uvicorn, as written in ten minutes.

A plain `def` runs in Starlette's thread pool, whose size is the only setting (its default of 40 would compute
concurrently). The body is the file itself, cheaper than a form; uvicorn uses uvloop and httptools; no access
log. It refuses no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio.to_thread
import orjson
import uvicorn
from fastapi import Body, FastAPI, Response

from benchmarks.peers.model import FullNetwork, Setup

SETUP = Setup.read()
NETWORK = FullNetwork(SETUP.model)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Set the size of the thread pool."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = SETUP.threads
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
def classify(image: Annotated[bytes, Body(media_type="image/png")]) -> Response:
    """One image file, one prediction."""
    answer = {"predictions": NETWORK.predict([NETWORK.decode(image)])}
    return Response(orjson.dumps(answer), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        # By name if there are several processes, since each imports it.
        "benchmarks.peers.plain:app" if SETUP.workers > 1 else app,
        port=SETUP.port,
        workers=SETUP.workers,
        access_log=False,
        log_level="warning",
    )
