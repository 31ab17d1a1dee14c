"""The FastAPI application."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope

from offramp import __version__
from serving.api import v2
from serving.api.access_log import AccessLog
from serving.api.asgi.addresses import HeadAsGet, StripRootPath
from serving.api.asgi.completion import CompletionHook
from serving.api.asgi.fast_path import Endpoint, FastPathMiddleware, check_fast_routes
from serving.api.asgi.load_shedding import LoadShedder
from serving.api.asgi.middleware import BodyLimit, RequestContext
from serving.api.asgi.refusals import Refuse
from serving.api.auth import AdminKey
from serving.api.direct import DirectClassifier
from serving.api.jobs.running import running_jobs
from serving.api.routes import (
    cam,
    canary,
    classify,
    docs,
    feedback,
    jobs,
    models,
    page,
    policy,
    preprocess,
    probes,
    stream,
)
from serving.api.routes.watch import drift, gears, shadow
from serving.api.tracing import annotator, instrument, otlp_provider
from serving.api.validation import sentence
from serving.connection import SERVER_LIMITS, ServerHooks
from serving.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    OutOfMemoryError,
    ServingError,
    UnsupportedTypeError,
)
from serving.gears.shifter import shifting_gears
from serving.service import Service
from serving.settings import Settings
from serving.shadow.monitor import checking_shadows
from serving.watcher import watching

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("offramp.serving")
# What pages of allowed origins may send and read, besides what any page may.
CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CORS_REQUEST_HEADERS = (
    *("Authorization", "Content-Encoding", "Content-Type", "If-Match", "X-API-Key", "X-Request-ID"),
    "Inference-Header-Content-Length",
)
CORS_RESPONSE_HEADERS = (
    *("ETag", "Retry-After", "Server-Timing", "X-Request-ID", "Inference-Header-Content-Length"),
    "Offramp-Limited-By",
)
# The routes on the fast path, whose outcomes are counted by model.
HOT: Mapping[str, Endpoint] = {classify.PATH: classify.classify, stream.PATH: stream.stream}


def create_app(
    settings: Settings,
    *,
    access: BinaryIO | None = None,
    tracer: TracerProvider | None = None,
    service: Service | None = None,
) -> FastAPI:
    """The app; its lifespan loads and warms the models of `settings`, and closes the service.

    `app.state` has `service`, `admin_key`, and the `server_hooks` for Offramp's own HTTP server. With
    `access_log` set, lines go to `access`, by default stdout; with `otel` set, spans go to `tracer`, by
    default over OTLP. Raises SettingsError; starting raises BundleError and the like.
    """
    admin_key = AdminKey(settings)
    service = service or Service(settings)
    hooks: list[CompletionHook] = []
    access_log = AccessLog(access or sys.stdout.buffer) if settings.access_log else None
    if access_log is not None:
        hooks.append(access_log.finished)
    if settings.otel:
        tracer = tracer or otlp_provider()
        hooks.append(annotator())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not app.state.server_hooks.in_use:
            log.warning(
                "this is not Offramp's own HTTP server (offramp serve); not in force are: %s",
                "; ".join(SERVER_LIMITS),
            )
        await asyncio.to_thread(service.load)
        try:
            async with (
                watching(service),
                running_jobs(app, service),
                shifting_gears(service.gears),
                checking_shadows(service.shadow),
            ):
                yield
        finally:
            service.drain()
            await asyncio.to_thread(service.close)
            if access_log is not None:
                await asyncio.to_thread(access_log.close)
            if settings.otel and tracer is not None:
                await asyncio.to_thread(tracer.shutdown)

    app = FastAPI(
        title="Offramp",
        description="Image classification that answers easy images early.",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        # FastAPI's page loads its scripts from another host: see `routes.docs`.
        docs_url=None,
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        # Tracing is in `serving.api.tracing`. Versions of FastAPI without telemetry ignore this.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    app.state.admin_key = admin_key
    for module in (
        *(classify, stream, cam, preprocess, jobs, models, policy, drift, gears, canary, feedback),
        *(page, docs, probes, shadow),
        v2,
    ):
        app.include_router(module.router)
    check_fast_routes(app, HOT)
    _handle_errors(app)

    def refuse_scope(scope: Scope, error: ServingError | RequestValidationError) -> Response:
        if isinstance(error, RequestValidationError):
            error = InvalidRequestError(sentence(error, skip=1))
        return refuse(service, scope, error)

    app.state.server_hooks = _server_hooks(service, refuse_scope, hooks)
    _add_middleware(app, refuse_scope, hooks)
    if settings.otel and tracer is not None:
        instrument(app, tracer)
    return app


def _server_hooks(service: Service, refuse: Refuse, hooks: Sequence[CompletionHook]) -> ServerHooks:
    settings = service.settings
    server_hooks = ServerHooks(
        settings,
        rejected=service.metrics.rejected,
        draining=lambda: service.phase == "draining",
        uploads=service.uploads,
    )
    # With tracing a request has a span, and with CORS headers for browsers, so it goes through the app.
    if not (settings.otel or settings.cors_origins):
        server_hooks.shed = LoadShedder(service, HOT, refuse, hooks).refusal
        # uvicorn's layer replaces the client's address, which only logs need.
        if not (settings.forwarded_allow_ips and hooks):
            server_hooks.direct = DirectClassifier(service, refuse, hooks).begin
    return server_hooks


def _add_middleware(app: FastAPI, refuse: Refuse, hooks: Sequence[CompletionHook]) -> None:
    server_hooks: ServerHooks = app.state.server_hooks
    settings = server_hooks.settings
    # The first one is the innermost.
    app.add_middleware(HeadAsGet)
    app.add_middleware(FastPathMiddleware, routes=HOT, refuse=refuse)
    app.add_middleware(
        BodyLimit,
        limit=settings.max_body_bytes,
        own_limits={jobs.PATH: settings.job_max_bytes} if settings.jobs is not None else {},
        uploads=server_hooks.uploads,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=CORS_METHODS,
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_RESPONSE_HEADERS,
        )
    if settings.root_path:
        app.add_middleware(StripRootPath, root_path=settings.root_path)
    app.add_middleware(RequestContext, refuse=refuse, closing=server_hooks.draining, hooks=hooks)


def refuse(
    service: Service, scope: Scope, error: ServingError, headers: dict[str, str] | None = None
) -> Response:
    """Count `error` and answer it, below /v2 in the form of the Open Inference Protocol."""
    scope.setdefault("state", {})["code"] = error.code
    if error.code != "internal":
        service.metrics.rejected(error.code)
    path: str = scope["path"]
    protocol = path == "/v2" or path.startswith("/v2/")
    if path in HOT or (protocol and path.endswith("/infer")):
        service.metrics.failed(scope.get("state", {}).get("model", ""), error.code)
    return Response(
        error.body(with_code=not protocol),
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
        # FastAPI passes a body on as bytes if its Content-Type is not JSON.
        if isinstance(error.body, bytes):
            unlike = UnsupportedTypeError("The Content-Type must be application/json.")
            return refuse(service, request.scope, unlike)
        return refuse(service, request.scope, InvalidRequestError(sentence(error, skip=1)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        # FastAPI wraps errors that are raised while it reads a body.
        if isinstance(error.__cause__, ServingError):
            return refuse(service, request.scope, error.__cause__)
        if isinstance(error.__cause__, MemoryError):
            return refuse(service, request.scope, OutOfMemoryError())
        if error.status_code == MethodNotAllowedError.status:
            headers["Allow"] = ", ".join(
                _allowed(app, request.scope["path"], headers.get("Allow", ""))
            )
            answer: ServingError = MethodNotAllowedError(
                f"This address does not take the method {request.method}."
            )
        elif error.status_code == NotFoundError.status:
            answer = NotFoundError("There is nothing at this address.")
        # Besides what it reports as invalid: wrong UTF-8, integers that are too long, and too deep nesting.
        elif isinstance(error.__cause__, (ValueError, RecursionError)):
            answer = InvalidRequestError("The body is not valid JSON.")
        else:
            answer = InvalidRequestError("The request is malformed.")
        return refuse(service, request.scope, answer, headers)


def _allowed(app: FastAPI, path: str, first: str) -> list[str]:
    """The methods of `path`, of all routes; `first` are those of the first route that matches."""
    methods = {method.strip() for method in first.split(",") if method.strip()}
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            methods.update(method.upper() for method in operations)
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods)
