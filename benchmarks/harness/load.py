"""An open-loop load generator, to be run as a process of its own.

    python -m benchmarks.harness.load --port 8000 --images images.npz --rate 200 --seconds 10

Requests are sent at the times of a Poisson process, whether or not earlier ones were answered, and latency
counts from the time a request was due, so that a slow server does not slow down its own measurement.
`--closed N` keeps N connections busy instead, one request after another; a refused one waits for
`Retry-After`. Prints one JSON object: counts by status, latencies of answers in milliseconds, and for every
answer the image's number, the class and the exit.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvloop

from benchmarks.harness.forms import FORMS
from benchmarks.harness.wire import Connection

REQUEST_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 512


class Load:
    """Sends requests and records the answers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        with np.load(arguments.images) as arrays:
            ends = np.cumsum(arrays["sizes"])
            content = arrays["content"].tobytes()
        starts = [0, *ends.tolist()]
        self._form = FORMS[arguments.form]
        # Bodies are made before the measurement.
        self._bodies = [self._form.body(content[a:b]) for a, b in itertools.pairwise(starts)]
        self._random = np.random.default_rng(arguments.seed)
        self._free: list[Connection] = []
        self._opened = 0
        self.statuses: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.answers: list[tuple[int, int, int]] = []
        self.delays: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Send requests for the time given, wait for the last answers, and return the report."""
        began = time.perf_counter()
        if self._arguments.closed:
            await self._closed(began)
        else:
            await self._open(began)
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "offered": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            "latencies": [round(1000 * value, 3) for value in self.latencies],
            "answers": self.answers,
            "late_by": [round(1000 * value, 3) for value in self.delays],
        }

    async def _open(self, began: float) -> None:
        rate, seconds = self._arguments.rate, self._arguments.seconds
        gaps = self._random.exponential(1 / rate, int(rate * seconds * 1.5) + 10)
        due = began + np.cumsum(gaps)
        tasks = []
        for number, when in enumerate(due[due < began + seconds].tolist()):
            # The event loop has a resolution of milliseconds and may wake up too early.
            while (wait := when - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self.delays.append(max(0.0, time.perf_counter() - when))
            tasks.append(asyncio.create_task(self._ask(number, when)))
        await asyncio.gather(*tasks)

    async def _closed(self, began: float) -> None:
        ends = began + self._arguments.seconds

        async def one(first: int) -> None:
            for number in itertools.count(first, self._arguments.closed):
                wait = await self._ask(number, time.perf_counter())
                if time.perf_counter() + wait >= ends:
                    return
                await asyncio.sleep(wait)

        await asyncio.gather(*(one(first) for first in range(self._arguments.closed)))

    async def _ask(self, number: int, due: float) -> float:
        """Send a request and record the answer; returns the seconds of `Retry-After`, or 0."""
        image = number % len(self._bodies)
        if not self._free and self._opened >= MAX_CONNECTIONS:
            self.statuses["not sent"] += 1
            return 0.0
        connection = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if self._free:
                    connection = self._free.pop()
                else:
                    self._opened += 1
                    connection = await Connection.open("127.0.0.1", self._arguments.port)
                reply = await connection.post(
                    self._arguments.path, self._bodies[image], self._form.kind, self._form.headers
                )
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.statuses[type(error).__name__] += 1
            self._opened -= 1
            if connection is not None:
                connection.close()
            return 0.0
        self._free.append(connection)
        self.statuses[str(reply.status)] += 1
        if reply.status == 200:
            self.latencies.append(time.perf_counter() - due)
            self.answers.append((image, *self._form.read(reply)))
        return float(reply.headers.get("retry-after", 0))


def pack(files: list[bytes], path: Path) -> None:
    """Write `files` in the format that the generator reads."""
    content = np.frombuffer(b"".join(files), dtype=np.uint8)
    np.savez(path, content=content, sizes=[len(file) for file in files])


def main() -> None:
    """Run the load and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="what `pack` wrote")
    parser.add_argument("--path", default="/v1/classify?top_k=1")
    parser.add_argument("--form", choices=FORMS, default="offramp", help="of requests and answers")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--closed", type=int, default=0, help="connections; 0: open loop")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    print(orjson.dumps(uvloop.run(Load(parser.parse_args()).run())).decode())


if __name__ == "__main__":
    main()
