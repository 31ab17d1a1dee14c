"""The FastAPI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from offramp import __version__
from serving.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServingError,
)
from serving.lean import ShortWay
from serving.middleware import BodyLimit, RequestContext
from serving.routes import classify, models, page, probes, stream
from serving.service import Service
from serving.settings import Settings

# Names of parameters come from the client, at any length.
NAME_LIMIT = 40
# The routes whose every microsecond counts, and whose outcomes are counted.
HOT = {classify.PATH: classify.classify, stream.PATH: stream.stream}


def create_app(settings: Settings) -> FastAPI:
    """The app; its lifespan loads and warms the models of `settings` and ends its workers.

    `app.state.service` is its state. Starting raises BundleError and its like.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.load)
        try:
            yield
        finally:
            service.drain()
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Offramp",
        description="Image classification that answers easy images early.",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    for module in (classify, stream, models, page, probes):
        app.include_router(module.router)
    _handle_errors(app)

    def refuse_scope(scope: Scope, error: ServingError | RequestValidationError) -> Response:
        if isinstance(error, RequestValidationError):
            error = InvalidRequestError(_sentence(error))
        return refuse(service, scope, error)

    # The first one is the innermost.
    app.add_middleware(ShortWay, routes=HOT, refuse=refuse_scope)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(RequestContext, refuse=refuse_scope)
    return app


def refuse(
    service: Service, scope: Scope, error: ServingError, headers: dict[str, str] | None = None
) -> Response:
    """Count `error` and write it in the form that every error has."""
    if error.code != "internal":
        service.metrics.rejected(error.code)
    if scope["path"] in HOT:
        service.metrics.failed(scope.get("state", {}).get("model", ""), error.code)
    return Response(
        orjson.dumps({"error": str(error), "code": error.code}),
        status_code=error.status,
        media_type="application/json",
        headers={**error.headers, **(headers or {})},
    )


def _handle_errors(app: FastAPI) -> None:
    service: Service = app.state.service

    @app.exception_handler(ServingError)
    async def serving_error(request: Request, error: ServingError) -> Response:
        return refuse(service, request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return refuse(service, request.scope, InvalidRequestError(_sentence(error)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == MethodNotAllowedError.status:
            wrong: ServingError = MethodNotAllowedError(
                f"This address does not take the method {request.method}."
            )
        elif error.status_code == NotFoundError.status:
            wrong = NotFoundError("There is nothing at this address.")
        else:
            wrong = InvalidRequestError("The request is malformed.")
        return refuse(service, request.scope, wrong, headers)


def _sentence(error: RequestValidationError) -> str:
    detail = error.errors()[0]
    name = ".".join(str(part) for part in detail["loc"][1:])[:NAME_LIMIT]
    if detail["type"] == "extra_forbidden":
        return f"There is no parameter {name!r} here."
    reason = str(detail["msg"])
    return f"The parameter {name} is not valid: {reason[:1].lower()}{reason[1:]}."
