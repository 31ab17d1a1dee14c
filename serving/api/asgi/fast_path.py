"""Hot routes without FastAPI's routing, validation and exit stacks, which together cost more than a small
network's stages. FastAPI still documents these routes, and answers other methods.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, get_type_hints
from urllib.parse import parse_qsl

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from offramp.errors import OfframpError
from serving.api.asgi.refusals import Refuse
from serving.errors import InvalidRequestError, ServingError
from serving.service import of_request

# Programs repeat their queries, and validating one costs more than everything else done with it.
MAX_CACHED_QUERIES = 1024
# No valid query is longer. It bounds the time to parse one and the memory of the cache.
MAX_QUERY_BYTES = 4096
# The outcome in offramp_requests_total of a request whose client disconnected.
CANCELLED = "cancelled"

# An endpoint as FastAPI takes it, whose parameter `query` is a frozen pydantic model.
Endpoint = Callable[[Request, Any], Coroutine[Any, Any, Response]]


class FastPathError(OfframpError):
    """A route has something that FastAPI would do for it and the fast path does not."""


class FastPathMiddleware:
    """Runs the endpoints of `routes`, POST by exact path, and leaves every other request to `app`."""

    def __init__(self, app: ASGIApp, routes: Mapping[str, Endpoint], refuse: Refuse) -> None:
        """`refuse` turns an error of an endpoint into a response."""
        self._app = app
        self._refuse = refuse
        self._routes = {
            path: (endpoint, query_model(endpoint)) for path, endpoint in routes.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.get(scope.get("path", ""))
        if found is None or scope.get("method") != "POST":
            await self._app(scope, receive, send)
            return
        endpoint, model = found
        request = Request(scope, receive)
        try:
            response = await endpoint(request, read_query(model, scope["query_string"]))
        except (ServingError, RequestValidationError) as error:
            response = self._refuse(scope, error)
        except ClientDisconnect:
            name = getattr(request.state, "model", "")
            of_request(request).metrics.failed(name, CANCELLED)
            raise
        await response(scope, receive, send)


def query_model(endpoint: Endpoint) -> type[BaseModel]:
    """The pydantic model of the endpoint's query."""
    model: type[BaseModel] = get_type_hints(endpoint)["query"]
    return model


def read_query(model: type[BaseModel], query: bytes) -> BaseModel:
    """A query string as `model`; raises RequestValidationError, or InvalidRequestError if it is too long."""
    if len(query) > MAX_QUERY_BYTES:
        raise InvalidRequestError(f"The query is longer than {MAX_QUERY_BYTES} bytes.")
    return _read(model, query)


@lru_cache(maxsize=MAX_CACHED_QUERIES)
def _read(model: type[BaseModel], query: bytes) -> BaseModel:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    try:
        return model.model_validate(dict(pairs))
    except ValidationError as error:
        raise RequestValidationError(
            [{**detail, "loc": ("query", *detail["loc"])} for detail in error.errors()]
        ) from error


def check_fast_routes(app: FastAPI, routes: Mapping[str, Endpoint]) -> None:
    """Raise FastPathError if FastAPI would do more for `routes` than the fast path does."""
    for path, endpoint in routes.items():
        reason = _difference(app, path, endpoint)
        if reason is not None:
            raise FastPathError(f"POST {path} cannot be served on the fast path: {reason}.")


def _difference(app: FastAPI, path: str, endpoint: Endpoint) -> str | None:
    found = next(_find(app.router.routes, path), None)
    if found is None:
        return "the app has no such route"
    route, included_with = found
    if route.endpoint is not endpoint:
        return "the route has another endpoint"
    if app.router.dependencies or included_with or route.dependencies:
        return "the app, a router or the route has dependencies"
    dependant = route.dependant
    other_parameters = (
        *dependant.dependencies,
        *dependant.path_params,
        *dependant.header_params,
        *dependant.cookie_params,
        *dependant.body_params,
    )
    injected = (dependant.response_param_name, dependant.background_tasks_param_name)
    if other_parameters or len(dependant.query_params) != 1 or any(injected):
        return "the endpoint has parameters besides the request and its query"
    returned = get_type_hints(endpoint).get("return")
    if not (isinstance(returned, type) and issubclass(returned, Response)):
        return "the endpoint does not return a Response, so its response_model would be ignored"
    return None


def _find(routes: Iterable[BaseRoute], path: str) -> Iterator[tuple[APIRoute, list[Any]]]:
    """The routes for POST `path`, and the dependencies that their routers were included with."""
    for route in routes:
        if isinstance(route, APIRoute):
            if route.path == path and "POST" in (route.methods or ()):
                yield route, []
        elif (router := getattr(route, "original_router", None)) is not None:
            # Newer versions of FastAPI keep a router as it was included; older ones copy its routes.
            context = getattr(route, "include_context", None)
            added = list(getattr(context, "dependencies", ()))
            for below, deeper in _find(router.routes, path):
                yield below, [*added, *deeper]
