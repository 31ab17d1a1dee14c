"""What a client raises."""

from __future__ import annotations

from offramp.errors import OfframpError


class ClientError(OfframpError):
    """A request got no usable answer."""


class ConnectionFailedError(ClientError):
    """The server cannot be reached, or the connection broke or took too long."""


class ResponseError(ClientError):
    """The server answered with an error: its sentence, the HTTP `status`, and its `code` for programs.

    `code` is empty if the answer is not Offramp's, but a proxy's.
    """

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
