"""The short way to the hot routes: past FastAPI's routing, validation and exit stacks, which together
cost more than a small network's stages. FastAPI still documents these routes, and answers other methods.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, get_type_hints
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import InvalidRequestError, ServingError
from serving.service import of_request

# Programs repeat themselves, and reading a query anew costs more than anything else done with it.
MAX_CACHED_QUERIES = 1024
# Bytes of a query; no wish is longer, and both reading and remembering it have their price.
MAX_QUERY_BYTES = 4096
# The outcome of a request whose client has gone, in offramp_requests_total.
CANCELLED = "cancelled"

# An endpoint as FastAPI takes it: its query is a pydantic model, which must be frozen.
Endpoint = Callable[[Request, Any], Coroutine[Any, Any, Response]]
Refuse = Callable[[Scope, ServingError | RequestValidationError], Response]


class FastPathMiddleware:
    """Runs the endpoints of `routes`, POST by exact path, and leaves every other request to `app`."""

    def __init__(self, app: ASGIApp, routes: Mapping[str, Endpoint], refuse: Refuse) -> None:
        """`refuse` turns an error of an endpoint into a response."""
        self._app = app
        self._refuse = refuse
        self._routes = {path: (endpoint, query_kind(endpoint)) for path, endpoint in routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.get(scope.get("path", ""))
        if found is None or scope.get("method") != "POST":
            await self._app(scope, receive, send)
            return
        endpoint, kind = found
        request = Request(scope, receive)
        try:
            response = await endpoint(request, read_query(kind, scope["query_string"]))
        except (ServingError, RequestValidationError) as error:
            response = self._refuse(scope, error)
        except ClientDisconnect:
            model = getattr(request.state, "model", "")
            of_request(request).metrics.failed(model, CANCELLED)
            raise
        await response(scope, receive, send)


def query_kind(endpoint: Endpoint) -> type[BaseModel]:
    """The model of the endpoint's query."""
    kind: type[BaseModel] = get_type_hints(endpoint)["query"]
    return kind


def read_query(kind: type[BaseModel], query: bytes) -> BaseModel:
    """A query string as `kind`; raises RequestValidationError, or InvalidRequestError if it is too long."""
    if len(query) > MAX_QUERY_BYTES:
        raise InvalidRequestError(f"The query is longer than {MAX_QUERY_BYTES} bytes.")
    return _read(kind, query)


@lru_cache(maxsize=MAX_CACHED_QUERIES)
def _read(kind: type[BaseModel], query: bytes) -> BaseModel:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        raise RequestValidationError(
            [{**detail, "loc": ("query", *detail["loc"])} for detail in error.errors()]
        ) from error
