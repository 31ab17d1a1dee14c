"""Clients that send requests without pause, each on its own connection, and check every answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Whether an answer is right: the number of the image and the answer's JSON.
Check = Callable[[int, Any], bool]


@dataclass
class Load:
    """The number of right answers, and everything that went wrong."""

    address: tuple[str, int]
    images: list[bytes]
    check: Check
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    stopping: bool = False

    def client(self, first: int) -> None:
        """Send requests until `stopping`, or until the server accepts no new connections."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        number = first
        while not self.stopping:
            number = (number + 1) % len(self.images)
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                return
            except OSError as error:
                self.wrong.append(f"connecting: {error!r}")
                return
            try:
                connection.request(
                    "POST", "/v1/classify", self.images[number], {"Content-Type": "image/png"}
                )
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"asking: {error!r}")
                return
            if answer.status == 200 and self.check(number, json.loads(body)):
                self.answered += 1
            else:
                self.wrong.append(f"{answer.status}: {body.decode()}")

    def wait_for(self, more: int, within: float = 60) -> None:
        """Wait until `more` further requests are answered."""
        wanted, end = self.answered + more, time.monotonic() + within
        while self.answered < wanted and not self.wrong:
            assert time.monotonic() < end, f"{self.answered} of {wanted} answered"
            time.sleep(0.005)


@contextmanager
def load(
    address: tuple[str, int], images: list[bytes], check: Check, connections: int
) -> Iterator[Load]:
    """Run clients on `connections` connections within the block."""
    state = Load(address, images, check)
    threads = [
        threading.Thread(target=state.client, args=(7 * i,), daemon=True)
        for i in range(connections)
    ]
    for thread in threads:
        thread.start()
    try:
        yield state
    finally:
        state.stopping = True
        for thread in threads:
            thread.join(60)
