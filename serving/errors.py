"""Errors of serving. Each carries its HTTP status and its code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import orjson

from offramp.errors import OfframpError


class ServingError(OfframpError):
    """An error that is answered to a client; its message is one sentence."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    headers: Mapping[str, str] = MappingProxyType({})

    def body(self, *, with_code: bool = True) -> bytes:
        """The JSON of an error response; the Open Inference Protocol has no code in it."""
        content = {"error": str(self)}
        return orjson.dumps({**content, "code": self.code} if with_code else content)


class SettingsError(ServingError):
    """The settings cannot work, so the server does not start."""


class InternalError(ServingError):
    """An unexpected fault of the server; the log has the details under the request's id."""

    def __init__(self) -> None:
        super().__init__("The server failed to answer this request; its log says why.")


class InvalidOutputError(ServingError):
    """The network gave values for an image that are no logits."""

    code = "invalid_output"


class InvalidRequestError(ServingError):
    """The body or a parameter is malformed."""

    status = 400
    code = "invalid_request"


class InvalidImageError(ServingError):
    """An image cannot be decoded, or is larger than allowed."""

    status = 400
    code = "invalid_image"


class UnauthorizedError(ServingError):
    """A request to an admin route without its key."""

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
    """The head or the body of a request did not arrive in time."""

    status = 408
    code = "request_timeout"


class BadBundleError(ServingError):
    """A bundle cannot be loaded; the served models stay."""

    status = 409
    code = "bad_bundle"


class NotPersistedError(ServingError):
    """The policy cannot be written into the bundle; the one in force stays."""

    status = 409
    code = "not_persisted"


class BelowFloorError(ServingError):
    """The policy does not keep the accuracy floor of the gears; the one in force stays."""

    status = 409
    code = "below_floor"


class CanaryConflictError(ServingError):
    """A canary cannot be started or promoted as things are; nothing has changed."""

    status = 409
    code = "canary_conflict"


class NotRecordingError(ServingError):
    """The server does not record requests, so none can get a label."""

    status = 409
    code = "not_recording"


class JobsDisabledError(ServingError):
    """The server has no directory for jobs."""

    status = 409
    code = "jobs_disabled"

    def __init__(self) -> None:
        super().__init__("The server takes no jobs; start it with --jobs.")


class RevisionConflictError(ServingError):
    """The policy has changed since the revision that `If-Match` names."""

    status = 412
    code = "revision_conflict"


class TooLargeError(ServingError):
    """The body is larger than allowed."""

    status = 413
    code = "too_large"


class UnsupportedTypeError(ServingError):
    """The body's media type is not supported."""

    status = 415
    code = "unsupported_type"


class UnsupportedEncodingError(UnsupportedTypeError):
    """The body has an encoding that cannot be unpacked."""

    headers = MappingProxyType({"Accept-Encoding": "gzip, deflate, identity"})

    def __init__(self) -> None:
        super().__init__("The Content-Encoding must be gzip, deflate or identity.")


class HeadTooLargeError(ServingError):
    """The request line and headers are longer than allowed."""

    status = 431
    code = "head_too_large"


class OverCapacityError(ServingError):
    """The predicted wait is longer than allowed."""

    status = 429
    code = "over_capacity"

    def __init__(self, message: str, retry_after: float) -> None:
        """`retry_after` is in seconds; the header has whole ones."""
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = {"Retry-After": str(max(1, math.ceil(retry_after)))}


class NotSupportedError(ServingError):
    """A part of the Open Inference Protocol that this server does not support."""

    status = 501
    code = "not_supported"


class NotReadyError(ServingError):
    """The models are not loaded yet."""

    status = 503
    code = "not_ready"


class OutOfMemoryError(ServingError):
    """There is too little memory for an image or a batch now."""

    status = 503
    code = "out_of_memory"
    headers = MappingProxyType({"Retry-After": "1"})

    def __init__(self) -> None:
        super().__init__("The server has too little memory for this now; try again.")

    def __reduce__(self) -> tuple[type[OutOfMemoryError], tuple[()]]:
        return OutOfMemoryError, ()


class RecordingError(ServingError):
    """The records of requests cannot be read or written now."""

    status = 503
    code = "records_unavailable"


class JobStorageError(ServingError):
    """The directory of jobs cannot be read or written now."""

    status = 503
    code = "jobs_unavailable"
    headers = MappingProxyType({"Retry-After": "10"})


class DrainingError(ServingError):
    """The server is shutting down."""

    status = 503
    code = "draining"


class TooManyConnectionsError(ServingError):
    """As many connections as allowed are open, and none of them is idle."""

    status = 503
    code = "too_many_connections"
    headers = MappingProxyType({"Retry-After": "1"})


class DeadlineExceededError(ServingError):
    """The deadline came before the image had reached the first exit."""

    status = 504
    code = "deadline_exceeded"


# Errors of one image: the other images of its request are answered.
IMAGE_ERRORS = (InvalidImageError, DeadlineExceededError, OutOfMemoryError)
