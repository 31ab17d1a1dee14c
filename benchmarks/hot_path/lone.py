"""The latency of a lone request on several servers, one request on each in turn."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import time
from collections.abc import Sequence

from benchmarks.harness.server import on_cores


def medians_in_turns(
    addresses: dict[str, tuple[int, str]], files: Sequence[bytes], cores: Sequence[int], rounds: int
) -> dict[str, float]:
    """Median milliseconds of a request by server, given as port and path, from a client on `cores`.

    A machine's speed changes within seconds, so every round asks each server once with the same file.
    Raises RuntimeError if a server does not answer with 200.
    """
    times: dict[str, list[float]] = {name: [] for name in addresses}
    with contextlib.ExitStack() as stack, on_cores(cores):
        connections = {
            name: stack.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", port))
            )
            for name, (port, _) in addresses.items()
        }
        for round_ in range(rounds):
            file = files[round_ % len(files)]
            for name, connection in connections.items():
                started = time.perf_counter()
                _ask(connection, addresses[name][1], file)
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def _ask(connection: http.client.HTTPConnection, path: str, file: bytes) -> None:
    connection.request("POST", path, file, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path}: status {answer.status}, {body[:200]!r}")
