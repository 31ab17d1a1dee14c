"""A load generator on raw sockets, to be run as a process of its own.

    python -m benchmarks.harness.load --port 8000 --images images.npz --rate 200 --seconds 10

Requests are sent at the times of a Poisson process, whether or not earlier ones were answered, and latency
counts from the time a request was due, so that a slow server does not slow down its own measurement.
`--closed N` keeps N connections busy instead, one request after another; a refused one waits for
`Retry-After`. Requests are made before the measurement and answers are read after it, so that the generator
costs little beside a server. Prints one JSON object: counts by status, latencies of answers in milliseconds,
for every answer the image's number, the class and the exit, and the generator's own CPU seconds.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import select
import socket
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.harness.forms import FORMS
from benchmarks.harness.wire import Reply, parse_reply, reply_size, request

REQUEST_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 512
RECEIVE_BYTES = 256 * 1024
READABLE = select.EPOLLIN
WRITABLE = select.EPOLLIN | select.EPOLLOUT


class Client:
    """A connection with at most one request: of image `image`, due at `due`, sent at `sent`. `unsent` is what
    the socket did not take yet, `received` the answer so far."""

    __slots__ = ("due", "image", "number", "received", "sent", "socket", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), REQUEST_TIMEOUT_S)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.image = self.number = -1
        self.due = self.sent = 0.0
        self.unsent = self.received = b""


class Load:
    """Sends requests and records the answers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        with np.load(arguments.images) as arrays:
            ends = np.cumsum(arrays["sizes"])
            content = arrays["content"].tobytes()
        starts = [0, *ends.tolist()]
        self._form = form = FORMS[arguments.form]
        self._requests = [
            request(arguments.path, form.body(content[a:b]), form.kind, form.headers)
            for a, b in itertools.pairwise(starts)
        ]
        self._random = np.random.default_rng(arguments.seed)
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._free: list[Client] = []
        # Requests in the order in which they were sent, to find those that take too long.
        self._sent: deque[tuple[float, Client]] = deque()
        self._answered: list[Client] = []
        self._replies: list[tuple[int, float, bytes]] = []
        self.statuses: Counter[str] = Counter()
        self.delays: list[float] = []

    def run(self) -> dict[str, Any]:
        """Send requests for the time given, wait for the last answers, and return the report."""
        began, cpu = time.perf_counter(), time.process_time()
        if self._arguments.closed:
            self._closed(began)
        else:
            self._open(began)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        latencies, answers = [], []
        for image, latency, content in self._replies:
            reply = parse_reply(content)
            self.statuses[str(reply.status)] += 1
            if reply.status == 200:
                latencies.append(round(1000 * latency, 3))
                answers.append((image, *self._form.read(reply)))
        return {
            "seconds": seconds,
            "cpu_s": cpu,
            "offered": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            "latencies": latencies,
            "answers": answers,
            "late_by": [round(1000 * value, 3) for value in self.delays],
        }

    def _open(self, began: float) -> None:
        rate, seconds = self._arguments.rate, self._arguments.seconds
        gaps = self._random.exponential(1 / rate, int(rate * seconds * 1.5) + 10)
        due = began + np.cumsum(gaps)
        for number, when in enumerate(due[due < began + seconds].tolist()):
            while (wait := when - time.perf_counter()) > 0:
                self._wait(wait)
            self.delays.append(max(0.0, time.perf_counter() - when))
            client = self._free.pop() if self._free else self._connect()
            if client is not None:
                self._send(client, number, when)
            # Answers that have come meanwhile, even if requests are late.
            self._wait(0)
        while self._clients.keys() - {free.socket.fileno() for free in self._free}:
            self._wait(REQUEST_TIMEOUT_S)

    def _closed(self, began: float) -> None:
        ends = began + self._arguments.seconds
        step = self._arguments.closed
        # When a connection sends again, and the number of its next request.
        waiting = [(began, number) for number in range(step)]
        busy = 0
        while waiting or busy:
            now = time.perf_counter()
            while waiting and waiting[0][0] <= now:
                _, number = heapq.heappop(waiting)
                client = self._free.pop() if self._free else self._connect()
                if client is not None:
                    self._send(client, number, time.perf_counter())
                    busy += 1
                elif now < ends:
                    heapq.heappush(waiting, (now, number + step))
            self._answered.clear()
            self._wait(waiting[0][0] - now if waiting else REQUEST_TIMEOUT_S)
            now = time.perf_counter()
            for client in self._answered:
                busy -= 1
                again = now + (_retry_after(client.received) if client.received else 0.0)
                if again < ends:
                    heapq.heappush(waiting, (again, client.number + step))

    def _connect(self) -> Client | None:
        if len(self._clients) >= MAX_CONNECTIONS:
            self.statuses["not sent"] += 1
            return None
        try:
            client = Client(self._arguments.port)
        except OSError as error:
            self.statuses[type(error).__name__] += 1
            return None
        self._clients[client.socket.fileno()] = client
        self._poll.register(client.socket, READABLE)
        return client

    def _send(self, client: Client, number: int, due: float) -> None:
        client.image = number % len(self._requests)
        client.number, client.due, client.sent = number, due, time.perf_counter()
        client.unsent, client.received = self._requests[client.image], b""
        self._sent.append((client.sent, client))
        self._push(client)

    def _push(self, client: Client) -> None:
        """Send what the socket takes."""
        try:
            taken = client.socket.send(client.unsent)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self._fail(client, error)
            return
        if taken == len(client.unsent):
            client.unsent = b""
            return
        # Only large bodies come here: the rest follows once the socket takes it.
        client.unsent = client.unsent[taken:]
        self._poll.modify(client.socket, WRITABLE)

    def _wait(self, seconds: float) -> None:
        """Handle what comes within `seconds`, or what has come."""
        # `epoll` waits for whole milliseconds, `select` for microseconds.
        if seconds > 0:
            select.select([self._poll], [], [], min(seconds, REQUEST_TIMEOUT_S))
        for descriptor, event in self._poll.poll(0):
            client = self._clients.get(descriptor)
            if client is None:
                continue
            if event & select.EPOLLOUT:
                self._poll.modify(client.socket, READABLE)
                self._push(client)
            if event & ~select.EPOLLOUT and descriptor in self._clients:
                self._receive(client)
        too_old = time.perf_counter() - REQUEST_TIMEOUT_S
        while self._sent and self._sent[0][0] < too_old:
            sent, client = self._sent.popleft()
            if client.sent == sent:
                self._fail(client, TimeoutError())

    def _receive(self, client: Client) -> None:
        try:
            content = client.socket.recv(RECEIVE_BYTES)
        except OSError as error:
            self._fail(client, error)
            return
        if not content or client.image < 0:
            self._fail(client, EOFError())
            return
        client.received += content
        size = reply_size(client.received)
        if size is None or len(client.received) < size:
            return
        self._replies.append((client.image, time.perf_counter() - client.due, client.received))
        client.image, client.sent = -1, 0.0
        self._free.append(client)
        self._answered.append(client)

    def _fail(self, client: Client, error: Exception) -> None:
        """Close a connection that failed, and count its request if there is one."""
        if client.image >= 0:
            self.statuses[type(error).__name__] += 1
            client.received = b""
            self._answered.append(client)
        else:
            self._free.remove(client)
        client.image, client.sent = -1, 0.0
        del self._clients[client.socket.fileno()]
        client.socket.close()


def pack(files: list[bytes], path: Path) -> None:
    """Write `files` in the format that the generator reads."""
    content = np.frombuffer(b"".join(files), dtype=np.uint8)
    np.savez(path, content=content, sizes=[len(file) for file in files])


def _retry_after(content: bytes) -> float:
    """The seconds of an answer's `Retry-After`; 0 without one."""
    if content.startswith(b"HTTP/1.1 200"):
        return 0.0
    reply: Reply = parse_reply(content)
    return float(reply.headers.get("retry-after", 0))


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
    print(orjson.dumps(Load(parser.parse_args()).run()).decode())


if __name__ == "__main__":
    main()
