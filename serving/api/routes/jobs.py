"""/v1/jobs: many images at low priority, polled or with a callback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving.api.asgi.headers import header
from serving.api.image_bodies import UNSPECIFIC_TYPES, form_boundary, without_preamble
from serving.api.jobs.answers import JobAnswer, JobQuery, describe_job
from serving.api.jobs.receiving import receive_job
from serving.api.query import resolve_policy
from serving.api.schemas import ErrorAnswer, resolve_top_k
from serving.errors import DrainingError, JobsDisabledError, JobStorageError, UnsupportedTypeError
from serving.jobs.callbacks import check_address
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore
from serving.service import Service, of_request

PATH = "/v1/jobs"
ARCHIVE_TYPES = (
    *("application/zip", "application/x-zip-compressed", "application/x-tar"),
    *("application/gzip", "application/x-gzip"),
)
ROWS = "application/x-ndjson"
CHUNK_BYTES = 1 << 18
router = APIRouter(prefix=PATH, tags=["jobs"])

_BINARY = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "Images as multipart files, or a zip, tar or tar.gz archive: the content decides.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {"files": {"type": "array", "minItems": 1, "items": _BINARY}},
            }
        },
        **{kind: {"schema": _BINARY} for kind in ("application/zip", "application/x-tar")},
        "application/gzip": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    },
}
DISABLED: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "The server takes no jobs."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "A parameter, the body or the archive is wrong."},
    404: {"model": ErrorAnswer, "description": "There is no model of this name."},
    413: {"model": ErrorAnswer, "description": "The body or what it unpacks to is too large."},
    415: {"model": ErrorAnswer, "description": "The body is of another media type or format."},
    429: {"model": ErrorAnswer, "description": "There are too many jobs; see Retry-After."},
    503: {"model": ErrorAnswer, "description": "Shutting down, or the disk is full."},
    **DISABLED,
}
UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such job, or none any more."},
    **DISABLED,
}


@router.post(
    "",
    status_code=202,
    response_model=JobAnswer,
    responses=ERRORS,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def create_job(
    request: Request, response: Response, query: Annotated[JobQuery, Query()]
) -> JobAnswer:
    """Store many images and classify them at low priority; the answer comes before that."""
    service = of_request(request)
    store, runner = _jobs(request)
    if service.phase == "draining":
        raise DrainingError("The server is shutting down.")
    _check(query, service)
    boundary = _boundary(request)
    length = header(request.scope, b"content-length")
    stream = request.stream()
    job = await receive_job(
        stream if boundary is None else without_preamble(stream, boundary),
        boundary,
        query,
        store,
        service.settings,
        int(length) if length.isdigit() else 0,
        None if service.budgets is None else service.budgets.client_of(request.scope),
    )
    runner.wake()
    response.headers["Location"] = f"{PATH}/{job.request.id}"
    return describe_job(job, store)


@router.get("/{id}", responses=UNKNOWN)
async def get_job(id: str, request: Request) -> JobAnswer:
    """The state of a job and its progress."""
    store, _ = _jobs(request)
    return describe_job(store.get(id), store)


@router.get(
    "/{id}/results",
    response_class=Response,
    responses={
        200: {
            "description": "A line of JSON for each image that is done, in their order.",
            "content": {ROWS: {"schema": {"type": "string"}}},
        },
        **UNKNOWN,
    },
)
async def get_results(id: str, request: Request) -> Response:
    """The rows of a job so far: all of them once it is done."""
    store, _ = _jobs(request)
    job = store.get(id)
    try:
        file = job.results.open("rb")
    except FileNotFoundError:
        store.get(id)  # Raises NotFoundError if it has made room meanwhile.
        return Response(b"", media_type=ROWS)
    except OSError as error:
        raise JobStorageError("The results cannot be read now.") from error
    rows = _rows(file, job.written)
    return StreamingResponse(rows, media_type=ROWS, headers={"Content-Length": str(job.written)})


@router.delete("/{id}", status_code=204, response_class=Response, responses=UNKNOWN)
async def delete_job(id: str, request: Request) -> None:
    """Stop a job, and delete its results."""
    store, runner = _jobs(request)
    await runner.delete(store.get(id))


def _jobs(request: Request) -> tuple[JobStore, JobRunner]:
    """Raises JobsDisabledError."""
    store = of_request(request).jobs
    if store is None:
        raise JobsDisabledError
    return store, request.app.state.job_runner


def _check(query: JobQuery, service: Service) -> None:
    """Raise what is wrong with the query before the body is read."""
    model = service.models.get(query.model)
    resolve_policy(query, model)
    resolve_top_k(query.top_k, len(model.engine.manifest.labels))
    if query.callback is not None:
        check_address(query.callback, service.settings.job_callback_hosts)


def _boundary(request: Request) -> bytes | None:
    """The boundary of a multipart body, None for an archive; raises UnsupportedTypeError."""
    content_type = header(request.scope, b"content-type").decode("latin-1")
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "multipart/form-data":
        return form_boundary(request)
    if kind not in UNSPECIFIC_TYPES and kind not in ARCHIVE_TYPES:
        raise UnsupportedTypeError(
            "The Content-Type must be multipart/form-data, application/zip, application/x-tar, "
            "application/gzip or application/octet-stream."
        )
    return None


def _rows(file: IO[bytes], size: int) -> Iterator[bytes]:
    with file:
        while size and (content := file.read(min(CHUNK_BYTES, size))):
            size -= len(content)
            yield content
