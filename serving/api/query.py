"""What a request to classify may wish for, in its query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.types import Scope

from exports.bundle.errors import PolicyError
from exports.bundle.policy import Mode, Policy
from serving.api.schemas import resolve_top_k
from serving.errors import InvalidRequestError
from serving.models.registry import LoadedModel
from serving.scheduling.options import Priority
from serving.service import Service

# Programs repeat their wishes, and making a policy anew takes its time.
MAX_CACHED_POLICIES = 1024


class ClassifyQuery(BaseModel):
    """What one request may wish for; the model's policy holds where it wishes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="Name of the model; the first one by default.")
    top_k: int | None = Field(
        None, ge=1, description="How many classes to list, at most all; 5 by default."
    )
    mode: Mode | None = Field(None, description="How to answer, in place of the policy's mode.")
    threshold: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Confidence to leave at, at every exit: 0 leaves at the first, "
        "above 1 never leaves early.",
    )
    max_exit: int | None = Field(None, ge=1, description="Deepest exit to go to, from 1.")
    deadline_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Milliseconds to answer in, from the request's arrival: what has reached an exit "
        "by then is answered from the deepest one.",
    )
    priority: Priority = Field(
        "normal", description="low gives way to normal; it is for work that nobody waits for."
    )


class StreamQuery(ClassifyQuery):
    """The same, and what only a stream can have."""

    run_all_exits: bool = Field(
        False, description="Run the exits behind the answer's, too; they change nothing."
    )


@dataclass(frozen=True)
class ResolvedRequest:
    """A query that was read, applied to the model it names."""

    model: LoadedModel
    policy: Policy
    top_k: int
    deadline: float | None
    priority: Priority


def resolve(
    query: ClassifyQuery, request: Request, service: Service, started: float
) -> ResolvedRequest:
    """What `query` means for a request that came at `started` of `time.perf_counter()`.

    Raises InvalidRequestError if a wish is out of the model's range, NotFoundError for an unknown
    model, OverCapacityError if the server would refuse the request now.
    """
    model = admit(query, request.scope, service)
    policy = model.policy
    if (query.mode, query.threshold, query.max_exit) != (None, None, None):
        try:
            policy = _override(policy, query.mode, query.threshold, query.max_exit)
        except PolicyError as error:
            raise InvalidRequestError(str(error)) from error
    deadline = None if query.deadline_ms is None else started + query.deadline_ms / 1000
    return ResolvedRequest(
        model,
        policy,
        resolve_top_k(query.top_k, len(model.engine.manifest.labels)),
        deadline,
        query.priority,
    )


def admit(query: ClassifyQuery, scope: Scope, service: Service) -> LoadedModel:
    """The model that `query` names, which the state of `scope` then tells, for counting what fails.

    Raises NotFoundError for an unknown model, OverCapacityError if the server would refuse the request
    now.
    """
    model = service.models.get(query.model)
    scope.setdefault("state", {})["model"] = model.name
    service.dispatcher.check(query.priority)
    return model


@lru_cache(maxsize=MAX_CACHED_POLICIES)
def _override(
    policy: Policy, mode: Mode | None, threshold: float | None, max_exit: int | None
) -> Policy:
    return policy.override(mode, threshold, max_exit)
