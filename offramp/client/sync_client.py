"""The client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from offramp.client.answers import (
    Answer,
    ExitReached,
    ImageError,
    Model,
    Prediction,
    read_models,
)
from offramp.client.errors import ClientError, ResponseError
from offramp.client.requests import (
    BATCH_IMAGES,
    CLASSIFY,
    HALVED_STATUSES,
    IMAGE_CODES,
    MODELS,
    READY,
    STREAM,
    EventReader,
    Image,
    Options,
    batches,
    connection_error,
    connection_options,
    content_of,
    form_of,
    query_of,
    raise_for_error,
    read_response,
)
from offramp.client.retries import RetryPolicy


class Client:
    """A client of the server at `url`; one instance keeps its connections, and threads may share it.

    Every method raises ConnectionFailedError if the server cannot be reached, ResponseError if it answers
    with an error, both after the attempts of `retries`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: RetryPolicy | None = None,
    ) -> None:
        """`timeout_s` is for connecting and for each wait for bytes."""
        self._http = httpx.Client(**connection_options(url, api_key, timeout_s))
        self._retries = retries or RetryPolicy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(self, image: Image, **options: Unpack[Options]) -> Prediction:
        """The prediction for one image, its bytes or its path."""
        (found,) = self._classify([content_of(image)], options).predictions
        if isinstance(found, ImageError):
            raise ClientError(found.error)
        return found

    def classify_many(
        self,
        images: Iterable[Image],
        *,
        batch_images: int = BATCH_IMAGES,
        **options: Unpack[Options],
    ) -> Iterator[Prediction | ImageError]:
        """A prediction or an error for each image, in order; `images` are read batch by batch.

        A batch that is too large for the server, or has too many images, is halved.
        """
        for batch in batches(images, batch_images):
            files = [content for content in batch if isinstance(content, bytes)]
            found = iter(self._classify_batch(files, options))
            for content in batch:
                yield content if isinstance(content, ImageError) else next(found)

    def stream(
        self, image: Image, *, run_all_exits: bool = False, **options: Unpack[Options]
    ) -> Iterator[ExitReached | Answer]:
        """Every exit of one image as it is reached, and the answer."""
        query = query_of(options, run_all_exits=run_all_exits)
        body = form_of([content_of(image)])
        response = self._send("POST", STREAM, stream=True, params=query, **body)
        reader = EventReader()
        try:
            for line in response.iter_lines():
                if (found := reader.feed(line)) is not None:
                    yield found
        except httpx.TransportError as error:
            raise connection_error(error, self._http.base_url) from error
        finally:
            response.close()

    def models(self) -> list[Model]:
        """The loaded models; the first one is the default."""
        return read_models(self._send("GET", MODELS).content)

    def ready(self) -> bool:
        """Whether the server is reached and ready; asks once."""
        try:
            return self._http.get(READY).is_success
        except httpx.TransportError:
            return False

    def _classify_batch(
        self, files: list[bytes], options: Options
    ) -> tuple[Prediction | ImageError, ...]:
        if not files:
            return ()
        try:
            return self._classify(files, options).predictions
        except ResponseError as error:
            if len(files) == 1 and error.code in IMAGE_CODES:
                return (ImageError(str(error), error.code),)
            if len(files) == 1 or error.status not in HALVED_STATUSES:
                raise
        middle = len(files) // 2
        return (
            *self._classify_batch(files[:middle], options),
            *self._classify_batch(files[middle:], options),
        )

    def _classify(self, files: list[bytes], options: Options) -> Answer:
        query = query_of(options)
        return read_response(self._send("POST", CLASSIFY, params=query, **form_of(files)))

    def _send(
        self, method: str, path: str, *, stream: bool = False, **content: Any
    ) -> httpx.Response:
        """The first response that is not to be retried; raises its error."""
        attempt = 0
        while True:
            attempt += 1
            request = self._http.build_request(method, path, **content)
            result: httpx.Response | httpx.TransportError
            try:
                result = self._http.send(request, stream=stream)
                if not result.is_success:
                    result.read()
            except httpx.TransportError as error:
                result = error
            wait = self._retries.wait(attempt, result)
            if wait is not None:
                time.sleep(wait)
            elif isinstance(result, httpx.Response):
                raise_for_error(result)
                return result
            else:
                raise connection_error(result, self._http.base_url) from result
