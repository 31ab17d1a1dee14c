"""What the application and the HTTP server below it exchange. Neither imports the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from starlette.responses import Response
from starlette.types import Scope

from serving.errors import OverCapacityError, ServingError
from serving.settings import Settings

# Where the server puts a request's `DisconnectSignal`: scope["extensions"][EXTENSION][DISCONNECT].
EXTENSION = "offramp"
DISCONNECT = "disconnect"
# Where an application that streams puts bytes that its client ignores between any two parts of the response.
FILLER = "filler"

# What the application cannot enforce by itself.
SERVER_LIMITS = (
    "the cap on connections (max_connections)",
    "timeouts of slow clients (header_timeout_seconds, body_timeout_seconds, keep_alive_seconds)",
    "the size of a request's head",
    "the cap on pipelined requests",
    "refusing for load before a task is created",
    "immediate notice of a client's disconnect",
    "draining at SIGTERM (drain_seconds, grace_seconds)",
)


class Answer(NamedTuple):
    """A response: its status, the lines of its header, each with its end, and its body."""

    status: int
    header_lines: bytes
    body: bytes

    @classmethod
    def of(cls, response: Response) -> Self:
        """A response that is not streamed."""
        lines = header_lines(response.raw_headers)
        return cls(response.status_code, lines, bytes(response.body))


class DirectRequest(Protocol):
    """A request that is answered without a task. Its methods are called on the event loop, and raise
    nothing."""

    def start(self, body: bytes, answer: Callable[[Answer], None]) -> None:
        """The body has arrived. `answer` is called once, now or later, unless `cancel` is."""

    def refuse(self, error: ServingError) -> Answer:
        """The answer to the request, which ends by `error` before its body has arrived."""

    def cancel(self) -> None:
        """The client has disconnected, before its answer."""


@dataclass(slots=True)
class Uploads:
    """The bytes of bodies that are in memory and have not arrived whole, of all requests together."""

    max_bytes: int
    held_bytes: int = 0

    def hold(self, size: int) -> None:
        """`size` more bytes have arrived, to be released in any case; raises OverCapacityError if they are
        too many."""
        self.held_bytes += size
        if self.held_bytes > self.max_bytes:
            raise OverCapacityError(
                "The server is receiving as many bytes as it allows; try again.", retry_after=1
            )

    def release(self, size: int) -> None:
        """`size` bytes of those belong to a whole body now, or were dropped."""
        self.held_bytes -= size


@dataclass
class ServerHooks:
    """What the server needs of the application, which puts it on `app.state.server_hooks`.

    `rejected` counts a refused request or connection by its error code. `draining` is whether every answer
    should close its connection. `shed` returns the answer to a request that is refused for load by its head
    alone, and None for any other request. `direct` returns a request, by its head, that can be answered
    without a task, and None for any other. Offramp's own server sets `in_use` before the app starts.
    """

    settings: Settings
    rejected: Callable[[str], None]
    draining: Callable[[], bool]
    uploads: Uploads
    shed: Callable[[Scope], Response | None] | None = None
    direct: Callable[[Scope], DirectRequest | None] | None = None
    in_use: bool = field(default=False, init=False)


class DisconnectSignal:
    """Reports to one listener that the client of a request has disconnected.

    `refusal` is what the application must answer instead of reading the rest of the body, if anything;
    `refused` says whether there was one. The connection closes after that answer.
    """

    def __init__(self, resume_reading: Callable[[], None]) -> None:
        """A connection that has paused reading notices no disconnect until `resume_reading` is called."""
        self._resume_reading = resume_reading
        self._listener: Callable[[], None] | None = None
        self.disconnected = False
        self.refusal: ServingError | None = None
        self.refused = False

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` if the client disconnects from now on; None removes it."""
        self._listener = listener
        if listener is not None:
            self._resume_reading()

    def refuse(self, error: ServingError) -> None:
        """Have the application answer `error`."""
        self.refusal, self.refused = error, True

    def take_refusal(self) -> ServingError:
        """The refusal, to be raised; it is not kept, or with its traceback it would keep itself."""
        found, self.refusal = self.refusal, None
        assert found is not None
        return found

    def notify(self) -> None:
        """The client has disconnected."""
        self.disconnected = True
        if self._listener is not None:
            self._listener()


def disconnect_signal(scope: Scope) -> DisconnectSignal | None:
    """The signal of a request; None below another server."""
    found: DisconnectSignal | None = scope.get("extensions", {}).get(EXTENSION, {}).get(DISCONNECT)
    return found


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])
