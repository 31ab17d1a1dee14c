"""A route that FastAPI documents and does not run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, get_type_hints
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.service import of_request

# Programs repeat themselves, and reading a query anew costs more than anything else done with it.
REMEMBERED = 1024
# The outcome of a request whose client has gone, in offramp_requests_total.
CANCELLED = "cancelled"


class LeanRoute(APIRoute):
    """For endpoints `(request, query: a pydantic model) -> Response`. FastAPI's own way to them costs
    more than a small network's stages do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint with its query read, and nothing else of what FastAPI would do."""
        endpoint = self.endpoint
        kind: type[BaseModel] = get_type_hints(endpoint)["query"]

        async def handle(request: Request) -> Response:
            try:
                query = read_query(kind, request.scope["query_string"])
                response: Response = await endpoint(request, query)
            except ClientDisconnect:
                model = getattr(request.state, "model", "")
                of_request(request).metrics.failed(model, CANCELLED)
                raise
            return response

        return handle


@lru_cache(maxsize=REMEMBERED)
def read_query(kind: type[BaseModel], query: bytes) -> BaseModel:
    """A query string as `kind`, which must be frozen; raises RequestValidationError."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        raise RequestValidationError(
            [{**detail, "loc": ("query", *detail["loc"])} for detail in error.errors()]
        ) from error
