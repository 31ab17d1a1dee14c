"""What can go wrong with a request. Each error carries its HTTP status and its code."""

from __future__ import annotations

from typing import ClassVar

from offramp.errors import OfframpError


class ServingError(OfframpError):
    """A request that is not answered with predictions; its message is one sentence for the client."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    headers: ClassVar[dict[str, str]] = {}


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


class NotFoundError(ServingError):
    """There is no such model or address."""

    status = 404
    code = "not_found"


class MethodNotAllowedError(ServingError):
    """The address exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class TooLargeError(ServingError):
    """The body is larger than allowed."""

    status = 413
    code = "too_large"


class UnsupportedTypeError(ServingError):
    """The body is of a media type that is not read here."""

    status = 415
    code = "unsupported_type"


class OverCapacityError(ServingError):
    """As many images as allowed are waiting already."""

    status = 429
    code = "over_capacity"
    # Long enough to clear a full queue on a slow machine, short enough not to idle a fast one.
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class NotReadyError(ServingError):
    """The models are not loaded yet."""

    status = 503
    code = "not_ready"


class DrainingError(ServingError):
    """The server is shutting down."""

    status = 503
    code = "draining"
