"""What happens to connections beyond the limit: an idle one makes room, or the new one is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from serving.errors import TooManyConnectionsError

# Refused connections that stay open until their clients have read why, of a process: each is an open file.
# Those beyond are closed at once, which may reset them.
MAX_REFUSED = 128
# A connection that has sent nothing for so long is idle.
SILENT_S = 1.0


class Connection(Protocol):
    """What this module needs to know of a connection. `idle_since` is monotonic, None while it is busy."""

    transport: asyncio.Transport

    @property
    def idle_since(self) -> float | None: ...


def close_longest_idle(connections: Iterable[Connection]) -> bool:
    """Close the connection that has been idle longest. Returns whether there was one."""
    idle = [(since, c) for c in connections if (since := c.idle_since) is not None]
    if not idle:
        return False
    _, longest = min(idle, key=lambda entry: entry[0])
    longest.transport.close()
    return True


def too_many_connections() -> TooManyConnectionsError:
    """The error that a new connection is answered with if none is idle."""
    return TooManyConnectionsError("The server has as many connections as it allows; try again.")
