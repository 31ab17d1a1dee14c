"""What can go wrong with a request. Each error carries its HTTP status and its code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import orjson

from offramp.errors import OfframpError


class ServingError(OfframpError):
    """A request that is not answered with predictions; its message is one sentence for the client."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    headers: Mapping[str, str] = MappingProxyType({})

    def body(self, *, with_code: bool = True) -> bytes:
        """The JSON of an error response; the Open Inference Protocol has no code in it."""
        content = {"error": str(self)}
        return orjson.dumps({**content, "code": self.code} if with_code else content)


class SettingsError(ServingError):
    """The server was asked to start with settings that cannot work."""


class InternalError(ServingError):
    """A fault of the server's own; the log has the details under the request's id."""

    def __init__(self) -> None:
        super().__init__("The server failed to answer this request; its log says why.")


class InvalidRequestError(ServingError):
    """The body or a parameter is malformed."""

    status = 400
    code = "invalid_request"


class InvalidImageError(ServingError):
    """An image cannot be decoded, or is larger than allowed."""

    status = 400
    code = "invalid_image"


class UnauthorizedError(ServingError):
    """An admin route was asked without the key it needs."""

    status = 401
    code = "unauthorized"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class NotFoundError(ServingError):
    """There is no such model or address."""

    status = 404
    code = "not_found"


class MethodNotAllowedError(ServingError):
    """The address exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class SlowRequestError(ServingError):
    """The head or the body of a request did not come in time."""

    status = 408
    code = "request_timeout"


class BadBundleError(ServingError):
    """The bundle that should be loaded cannot be; what was loaded stays."""

    status = 409
    code = "bad_bundle"


class NotPersistedError(ServingError):
    """The policy cannot be written into the bundle; the one in force stays."""

    status = 409
    code = "not_persisted"


class RevisionConflictError(ServingError):
    """The policy has changed since the revision that `If-Match` names."""

    status = 412
    code = "revision_conflict"


class TooLargeError(ServingError):
    """The body is larger than allowed."""

    status = 413
    code = "too_large"


class UnsupportedTypeError(ServingError):
    """The body is of a media type that is not read here."""

    status = 415
    code = "unsupported_type"


class HeadTooLargeError(ServingError):
    """The request line and headers are longer than allowed."""

    status = 431
    code = "head_too_large"


class OverCapacityError(ServingError):
    """More work is waiting than can be done within the wait allowed."""

    status = 429
    code = "over_capacity"

    def __init__(self, message: str, retry_after: float) -> None:
        """`retry_after` is when there will be room, in seconds; the header has whole ones."""
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = {"Retry-After": str(max(1, math.ceil(retry_after)))}


class NotSupportedError(ServingError):
    """The protocol knows this, but this server does not do it."""

    status = 501
    code = "not_supported"


class NotReadyError(ServingError):
    """The models are not loaded yet."""

    status = 503
    code = "not_ready"


class DrainingError(ServingError):
    """The server is shutting down."""

    status = 503
    code = "draining"


class TooManyConnectionsError(ServingError):
    """As many connections as allowed are open, and all are in use."""

    status = 503
    code = "too_many_connections"
    headers = MappingProxyType({"Retry-After": "1"})


class DeadlineExceededError(ServingError):
    """The request's deadline came before all of its images had reached the first exit."""

    status = 504
    code = "deadline_exceeded"
