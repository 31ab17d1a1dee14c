"""What a client sends and how it reads the response, without input and output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict

import httpx

from offramp import __version__
from offramp.client.answers import Answer, ExitReached, ImageError, read_answer, read_exit
from offramp.client.errors import ClientError, ConnectionFailedError, ResponseError
from offramp.grouping import group

CLASSIFY = "/v1/classify"
STREAM = "/v1/classify/stream"
MODELS = "/v1/models"
READY = "/readyz"
# Of a batch. The server's limits are 64 images and 10 MiB by default.
BATCH_IMAGES = 32
BATCH_BYTES = 8 << 20
# Of a batch with too many images and with too many bytes. Wrong options have 400 as well: then a lone image
# of the batch has it too.
HALVED_STATUSES = frozenset({400, 413})
# Statuses of a lone image that are its own fault; in a batch they would be its entry.
IMAGE_CODES = frozenset({"invalid_image", "deadline_exceeded", "too_large"})

# The bytes of an image file, or its path.
Image = bytes | str | os.PathLike[str]


class Options(TypedDict, total=False):
    """How to classify; the model's policy applies where an option is missing."""

    model: str
    top_k: int
    mode: Literal["early_exit", "ensemble", "exit"]
    threshold: float
    max_exit: int
    reject_below: float
    deadline_ms: float
    priority: Literal["normal", "low"]


def connection_options(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """The arguments of httpx's clients."""
    headers = {"User-Agent": f"offramp/{__version__}"}
    if api_key is not None:
        headers["X-API-Key"] = api_key
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def content_of(image: Image) -> bytes:
    """The bytes of `image`; raises ClientError if its file cannot be read."""
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise ClientError(f"{os.fspath(image)} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        # No file can have this name, such as one with a null character.
        raise ClientError(f"{os.fspath(image)!r} cannot be read: {error}.") from error


def form_of(files: Iterable[bytes]) -> dict[str, Any]:
    """The body of a request with `files`, as an argument of httpx's `request`."""
    kind = "application/octet-stream"
    return {"files": [("files", (str(n), file, kind)) for n, file in enumerate(files)]}


def query_of(options: Options, **more: bool) -> dict[str, Any]:
    """The query of a request, without options that are None; booleans in the form of JSON."""
    given = {name: value for name, value in options.items() if value is not None}
    flags = {name: "true" for name, value in more.items() if value}
    return {**given, **flags}


def batches(images: Iterable[Image], batch_images: int) -> Iterator[list[bytes | ImageError]]:
    """`images` in batches of at most `batch_images` and BATCH_BYTES, read when they are due. A file that
    cannot be read is an error in its place."""
    contents = (_content_or_error(image) for image in images)
    return group(contents, _size, batch_images, BATCH_BYTES)


def _content_or_error(image: Image) -> bytes | ImageError:
    try:
        return content_of(image)
    except ClientError as error:
        return ImageError(str(error), "unreadable")


def _size(content: bytes | ImageError) -> int:
    return len(content) if isinstance(content, bytes) else 0


def read_response(response: httpx.Response) -> Answer:
    """The answer in a response whose body was read; raises ResponseError."""
    raise_for_error(response)
    return read_answer(response.content)


def raise_for_error(response: httpx.Response) -> None:
    """Raise ResponseError if a response, whose body was read, is an error."""
    if response.is_success:
        return
    status = response.status_code
    try:
        content = response.json()
        raise ResponseError(content["error"], status, content.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResponseError(f"The server answered with status {status}.", status, "") from error


def connection_error(error: httpx.TransportError, url: httpx.URL) -> ConnectionFailedError:
    """`error` in one sentence."""
    reason = str(error) or type(error).__name__
    return ConnectionFailedError(f"{url} cannot be reached: {reason.rstrip('.')}.")


class EventReader:
    """Server-sent events, line by line."""

    def __init__(self) -> None:
        self._event = ""

    def feed(self, line: str) -> ExitReached | Answer | None:
        """What the next line completes, if anything; raises ResponseError for an event `error`."""
        name, _, value = line.partition(": ")
        if name == "event":
            self._event = value
        if name != "data":
            return None
        if self._event == "exit":
            return read_exit(value)
        if self._event == "answer":
            return read_answer(value)
        if self._event == "error":
            raise_for_error(httpx.Response(500, content=value))
        return None
