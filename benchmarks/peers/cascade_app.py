"""A confidence cascade over HTTP, as KServe's InferenceGraph runs it: a router before two servers.

A `Sequence` of two steps. The router sends the request to the first server and looks at the confidence in
its answer. Below the threshold it sends the same request to the second server, which decodes and computes
everything itself, and returns that answer. Each server is FastAPI around one network
(`benchmarks.peers.plain`).

KServe's router is a program in Go with an HTTP client; this one is an ASGI application without a framework
on uvicorn, with kept-alive connections to the servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uvicorn

from benchmarks.harness.processes import end, free_port
from benchmarks.harness.wire import Connection, Reply
from benchmarks.peers.model import CONDITION, LARGE, SMALL, Setup

PORTS = "CASCADE_PORTS"
START_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 10.0
Message = MutableMapping[str, Any]


class Upstream:
    """A server on loopback, with its idle connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def post(self, body: bytes) -> Reply:
        """The answer to an image file."""
        connection = (
            self._idle.pop() if self._idle else await Connection.open("127.0.0.1", self._port)
        )
        try:
            reply = await connection.post("/classify", body)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return reply


class Router:
    """The ASGI application."""

    def __init__(self, small: Upstream, large: Upstream, threshold: float) -> None:
        self._small = small
        self._large = large
        self._threshold = threshold

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        reply = await self._small.post(body)
        if reply.status == 200:
            (prediction,) = orjson.loads(reply.body)["predictions"]
            if prediction["confidence"] < self._threshold:
                reply = await self._large.post(body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(reply.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def router() -> Router:
    """The router of a worker process, from its environment."""
    small, large = (Upstream(int(port)) for port in os.environ[PORTS].split(","))
    condition = json.loads((Setup.read().model / CONDITION).read_text("utf-8"))
    return Router(small, large, condition["threshold"])


def main() -> None:
    """Start both servers, then the router; stop them with it."""
    setup = Setup.read()
    if not (setup.model / CONDITION).is_file():
        raise SystemExit("no exit of this bundle makes a cascade that is cheaper than full depth")
    ports = [free_port(), free_port()]
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.plain"],
            env={
                **os.environ,
                "PEER_MODEL": str(setup.model / name),
                "PEER_PORT": str(port),
            },
        )
        for name, port in zip((SMALL, LARGE), ports, strict=True)
    ]
    os.environ[PORTS] = ",".join(map(str, ports))
    try:
        for server, port in zip(servers, ports, strict=True):
            asyncio.run(_listening(server, port))
        uvicorn.run(
            "benchmarks.peers.cascade_app:router",
            factory=True,
            port=setup.port,
            workers=setup.workers,
            lifespan="off",
            access_log=False,
            log_level="warning",
        )
    finally:
        for server in servers:
            end(server, STOP_TIMEOUT_S)


async def _listening(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < until:
        try:
            (await Connection.open("127.0.0.1", port)).close()
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return
    raise SystemExit("a server of the cascade does not start")


if __name__ == "__main__":
    main()
