"""The query of a job, and how a job is answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field

from serving.api.query import PolicyQuery
from serving.api.schemas import ErrorAnswer
from serving.jobs.job import Delivery, Job, State
from serving.jobs.store import JobStore


class JobQuery(PolicyQuery):
    """The options of a job."""

    callback: str | None = Field(
        None,
        max_length=2048,
        description="An address to POST the finished job to, on a host that the server was started with.",
    )


@dataclass(frozen=True)
class JobAnswer:
    """A job: `done` of its `images` have a row in the results, `failed` of them one with an error. A job is
    failed if it ended before its last image; `error` says why. Times are ISO 8601; the results are kept
    until `expires`. `callback` is null without one."""

    id: str
    state: State
    images: int
    done: int
    failed: int
    error: ErrorAnswer | None
    created: str
    finished: str | None
    expires: str | None
    callback: Delivery | None
    results: str


def describe_job(job: Job, store: JobStore) -> JobAnswer:
    """`job` as answers and callbacks have it."""
    request, outcome = job.request, job.outcome
    expires = store.expires(job)
    delivery: Delivery | None = "pending" if request.callback is not None else None
    return JobAnswer(
        id=request.id,
        state=job.state,
        images=request.images,
        done=job.done,
        failed=job.failed,
        error=None if outcome is None or outcome.error is None else ErrorAnswer(*outcome.error),
        created=_iso(request.created),
        finished=None if outcome is None else _iso(outcome.finished),
        expires=None if expires is None else _iso(expires),
        callback=delivery if outcome is None else outcome.delivery,
        results=f"/v1/jobs/{request.id}/results",
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
