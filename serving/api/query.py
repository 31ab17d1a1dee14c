"""The query of a request to classify, and what it means for the model that it names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Scope

from exports.bundle.errors import PolicyError
from exports.bundle.policy import Mode, Policy
from serving.api.schemas import resolve_top_k
from serving.budgets.budgets import Reservation
from serving.canary.canary import Trial
from serving.errors import InvalidRequestError
from serving.models.registry import LoadedModel
from serving.scheduling.options import Priority, RequestOptions, ShadowOptions
from serving.service import Service
from serving.shadow.monitor import ShadowMonitor

# Programs repeat their queries, and validating a policy takes time.
MAX_CACHED_POLICIES = 1024


class PolicyQuery(BaseModel):
    """The model, and how it answers; the model's policy applies where an option is missing."""

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
        description="Value of the policy's measure to leave at, for every exit: 0 leaves at the first, "
        "above 1 never leaves early.",
    )
    max_exit: int | None = Field(None, ge=1, description="Deepest exit to run, from 1.")
    reject_below: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Least calibrated probability of a label; below it label and index are null and reason "
        "is unsure. 0 gives every image a label.",
    )


class ClassifyQuery(PolicyQuery):
    """Options of one request."""

    deadline_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Milliseconds from the request's arrival; an image is then answered from the deepest "
        "exit that it has reached.",
    )
    priority: Priority = Field(
        "normal", description="low runs when no normal request waits; it is for background work."
    )


class StreamQuery(ClassifyQuery):
    """ClassifyQuery, and the option of streams."""

    run_all_exits: bool = Field(
        False, description="Run the exits after the answer's as well; the answer stays the same."
    )


class PolicyOptions(Protocol):
    """The options of a request that replace parts of a policy."""

    @property
    def mode(self) -> Mode | None: ...

    @property
    def threshold(self) -> float | None: ...

    @property
    def max_exit(self) -> int | None: ...

    @property
    def reject_below(self) -> float | None: ...


@dataclass
class ResolvedRequest:
    """A query, resolved for the model that it names; `deadline` is of `time.perf_counter()`.

    While the model has a canary, `trial` is the request's part in the comparison. If the canary answers,
    `stable` is how the stable version would. With budgets, `reservation` is what the request may spend, once
    its images are known. `monitor` has the server's shadow checks, None without any.
    """

    model: LoadedModel
    policy: Policy
    top_k: int
    deadline: float | None
    priority: Priority
    trial: Trial | None = None
    stable: ResolvedRequest | None = None
    reservation: Reservation | None = None
    monitor: ShadowMonitor | None = None

    @property
    def options(self) -> RequestOptions:
        """How the scheduler treats the request."""
        return RequestOptions(self.policy, self.deadline, self.priority, shadow=self.shadow)

    @property
    def shadow(self) -> ShadowOptions | None:
        """Which images go on to full depth after the answer; none with `own_options`."""
        if self.monitor is None or self.own_options:
            return None
        return self.monitor.options(self.model)

    @property
    def limited(self) -> bool:
        """Whether a budget keeps the images from going as deep as they might."""
        return self.reservation is not None and self.reservation.limited

    @property
    def own_options(self) -> bool:
        """Whether something else than the policy in force decides where its images leave: the request's own
        options, a budget, or a lower gear."""
        return self.policy is not self.model.policy or self.deadline is not None


def resolve(
    query: ClassifyQuery, scope: Scope, service: Service, started: float
) -> ResolvedRequest:
    """Resolve `query` for the request of `scope` that arrived at `started` of `time.perf_counter()`.

    Raises InvalidRequestError if an option is out of the model's range, NotFoundError for an unknown model,
    OverCapacityError if the server would refuse the request now.
    """
    model = admit(query, scope, service)
    deadline = None if query.deadline_ms is None else started + query.deadline_ms / 1000
    return resolve_for(query, model, query.top_k, deadline, query.priority, scope, service)


def resolve_for(
    query: PolicyOptions,
    model: LoadedModel,
    top_k: int | None,
    deadline: float | None,
    priority: Priority,
    scope: Scope | None,
    service: Service,
) -> ResolvedRequest:
    """Resolve the options of `query` for `model`, or for its canary if it has one that takes the request of
    `scope`; without a scope the version was chosen by the client. Raises InvalidRequestError."""
    labels = len(model.engine.manifest.labels)
    resolved = ResolvedRequest(
        model,
        resolve_policy(query, model, in_gear=priority == "normal"),
        resolve_top_k(top_k, labels),
        deadline,
        priority,
        monitor=service.shadow,
    )
    if service.canaries.running and scope is not None:
        return _assign(query, resolved, scope, service)
    return resolved


def _assign(
    query: PolicyOptions, stable: ResolvedRequest, scope: Scope, service: Service
) -> ResolvedRequest:
    """`stable`, or the same request for the canary of its model. Options that the canary does not have, such
    as a deeper exit, are answered by the stable version."""
    canary = service.canaries.running.get(stable.model.name)
    if canary is None:
        return stable
    if canary.takes(scope):
        try:
            policy = resolve_policy(query, canary.model)
        except InvalidRequestError:
            pass
        else:
            trial = Trial(canary, "canary", stable.policy)
            return replace(stable, model=canary.model, policy=policy, trial=trial, stable=stable)
    return replace(stable, trial=Trial(canary, "stable", stable.policy))


def resolve_policy(query: PolicyOptions, model: LoadedModel, *, in_gear: bool = False) -> Policy:
    """The policy of `model` with the options of `query`; with `in_gear` that of its current gear.

    Options that say where images leave are of the policy in force, whatever the gear. Raises
    InvalidRequestError if one is out of range.
    """
    places = (query.mode, query.threshold, query.max_exit)
    policy = model.policy_in_gear if in_gear and places == (None, None, None) else model.policy
    if places == (None, None, None) and query.reject_below is None:
        return policy
    try:
        return _override(policy, *places, query.reject_below)
    except PolicyError as error:
        raise InvalidRequestError(str(error)) from error


def admit(query: ClassifyQuery, scope: Scope, service: Service) -> LoadedModel:
    """The model that `query` names, which is noted in `scope` for counting failures by model.

    Raises NotFoundError for an unknown model, OverCapacityError if the server would refuse the request now.
    """
    model = service.models.get(query.model)
    scope.setdefault("state", {})["model"] = model.name
    service.dispatcher.check(query.priority)
    return model


@lru_cache(maxsize=MAX_CACHED_POLICIES)
def _override(
    policy: Policy,
    mode: Mode | None,
    threshold: float | None,
    max_exit: int | None,
    reject_below: float | None,
) -> Policy:
    return policy.override(mode, threshold, max_exit, reject_below)
