"""Poisson load whose rate changes, with what became of every request; to be run as a process of its own.

    python -m benchmarks.gears.load --port 8000 --images images.npz --parts 5:100 2:300 10:100

`--parts` are seconds and requests a second, one after the other. Prints one JSON object: for every request,
in the order in which they were due, the second, the status (0 without an answer), the latency in milliseconds
from when it was due, the image and the class answered; and `time.time()` of second 0.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvloop

from benchmarks.gears.simulation import trace
from benchmarks.harness.wire import Connection

REQUEST_TIMEOUT_S = 10.0
# Below the server's own limit.
MAX_CONNECTIONS = 900


class Load:
    """Sends requests and records the answers."""

    def __init__(self, port: int, path: str, bodies: list[bytes], due: np.ndarray) -> None:
        self._port, self._path, self._bodies, self._due = port, path, bodies, due
        self._free: list[Connection] = []
        self._opened = 0
        self._status = [0] * len(due)
        self._latency = [0.0] * len(due)
        self._index = [-1] * len(due)
        self._late: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Send every request when it is due, wait for the last answers, and return the report."""
        began, began_at = time.perf_counter() + 0.1, time.time() + 0.1
        tasks = []
        for number, due in enumerate((began + self._due).tolist()):
            while (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._late.append(time.perf_counter() - due)
            tasks.append(asyncio.create_task(self._ask(number, due)))
        await asyncio.gather(*tasks)
        return {
            "began": began_at,
            "due": self._due.round(4).tolist(),
            "status": self._status,
            "latency": [round(1000 * value, 2) for value in self._latency],
            "image": [number % len(self._bodies) for number in range(len(self._due))],
            "index": self._index,
            "late_p99_ms": 1000 * float(np.percentile(self._late, 99)),
        }

    async def _ask(self, number: int, due: float) -> None:
        if not self._free and self._opened >= MAX_CONNECTIONS:
            return
        connection = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if self._free:
                    connection = self._free.pop()
                else:
                    self._opened += 1
                    connection = await Connection.open("127.0.0.1", self._port)
                reply = await connection.post(self._path, self._bodies[number % len(self._bodies)])
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self._opened -= 1
            if connection is not None:
                connection.close()
            return
        self._free.append(connection)
        self._status[number] = reply.status
        self._latency[number] = time.perf_counter() - due
        if reply.status == 200:
            self.answered(number, reply.json())

    def answered(self, number: int, answer: dict[str, Any]) -> None:
        """Request `number` was answered with the JSON `answer`."""
        self._index[number] = answer["predictions"][0]["index"]


def main() -> None:
    """Run the load and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="of benchmarks.harness.load")
    parser.add_argument("--path", default="/v1/classify?top_k=1")
    parser.add_argument("--parts", nargs="+", required=True, metavar="SECONDS:RATE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    parts = [tuple(map(float, part.split(":"))) for part in arguments.parts]
    with np.load(arguments.images) as arrays:
        ends = np.cumsum(arrays["sizes"]).tolist()
        content = arrays["content"].tobytes()
    bodies = [content[a:b] for a, b in itertools.pairwise([0, *ends])]
    due = trace([(seconds, rate) for seconds, rate in parts], arguments.seed)
    load = Load(arguments.port, arguments.path, bodies, due)
    report = orjson.dumps(uvloop.run(load.run()))
    # With PYTHONUNBUFFERED, `print` drops what a full pipe does not take.
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        output.write(report)


if __name__ == "__main__":
    main()
