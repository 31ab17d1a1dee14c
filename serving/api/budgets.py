"""What a client's budget changes of a request: how deep it goes, and what its answer says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starlette.types import Scope

from serving.api.query import ResolvedRequest
from serving.budgets.budgets import Reservation
from serving.models.registry import LoadedModel
from serving.scheduling.options import ImageResult
from serving.service import Service

# The header of an answer that a budget has limited, and its value, which the answer has as `limited_by`.
HEADER = "Offramp-Limited-By"
BUDGET = "budget"
LIMITED_HEADERS = {HEADER: BUDGET}


def limit(
    service: Service,
    scope: Scope,
    resolved: ResolvedRequest,
    images: int,
    *,
    all_exits: bool = False,
) -> ResolvedRequest:
    """`resolved` for `images`, with a reservation of its client's budget and no deeper than that pays for;
    `resolved` itself without budgets. With `all_exits` the exits after the answer are wanted as well."""
    if service.budgets is None:
        return resolved
    client = service.budgets.client_of(scope)
    model, policy = resolved.model, resolved.policy
    reservation = service.budgets.reserve(
        client, costs(model), images, policy.max_exit, all_exits=all_exits
    )
    return _limited(resolved, reservation)


def settle(reservation: Reservation, model: LoadedModel, results: Sequence[ImageResult]) -> None:
    """`model` answered the request of `reservation` with `results`."""
    reservation.settle(costs(model), results)


def costs(model: LoadedModel) -> list[int]:
    """The multiply-accumulates of each exit of `model`."""
    return [entry.macs for entry in model.engine.manifest.exits]


def _limited(resolved: ResolvedRequest, reservation: Reservation) -> ResolvedRequest:
    deepest = min(resolved.policy.max_exit, reservation.exit)
    policy, trial, stable = resolved.policy, resolved.trial, resolved.stable
    if deepest < policy.max_exit:
        policy = policy.override(max_exit=deepest)
    if stable is not None:
        stable = _limited(stable, reservation)
    if trial is not None:
        trial = trial._replace(stable_policy=policy if stable is None else stable.policy)
    return replace(resolved, policy=policy, trial=trial, stable=stable, reservation=reservation)
