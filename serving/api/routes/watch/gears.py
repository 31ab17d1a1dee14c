"""GET /v1/models/{name}/gears: the gears under the latency target, the current one and the last shifts."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field
from pydantic.dataclasses import dataclass

from exports.bundle.gears.plan import Gear
from serving.api.routes.models import UNKNOWN_MODEL
from serving.gears.controller import Reason
from serving.gears.shifter import GearStatus
from serving.service import ServiceOf
from serving.settings import Settings

router = APIRouter(prefix="/v1/models/{name}", tags=["models"])


@dataclass(frozen=True)
class ShiftAnswer:
    """A shift of gears."""

    at: datetime
    before: int
    after: int
    reason: Reason


@dataclass(frozen=True)
class GearsStatus:
    """The gears of a model, the dearest first, the current one, of which 0 is the policy in force, and the
    last shifts, the latest first.

    `p99_ms` is that of the last five seconds in this gear, from admission, null with fewer than 100 answers.
    `verified` is whether the plan is what this server's version chooses from the bundle's table.
    """

    target_p99_ms: float
    accuracy_floor: float
    p99_ms: float | None
    gear: int
    gears: list[Gear]
    shifts: list[ShiftAnswer]
    verified: bool


@dataclass(frozen=True)
class GearsAnswer:
    """The gears of a model: in a sentence, and in numbers. `status` is null without a latency target."""

    sentence: str
    status: GearsStatus | None = Field(description="Null without a latency target.")


@router.get("/gears", responses=UNKNOWN_MODEL)
async def get_gears(name: str, service: ServiceOf) -> GearsAnswer:
    """The policies that hold the latency target on this server, and the one in use."""
    model = service.models.get(name)
    if service.gears is None:
        return GearsAnswer("No latency target is set.", None)
    status = service.gears.status(model)
    if status is None:
        return GearsAnswer("The gears are not observed yet.", None)
    answer = _status(status, service.settings)
    return GearsAnswer(_sentence(answer), answer)


def _status(found: GearStatus, settings: Settings) -> GearsStatus:
    assert settings.target_p99_ms is not None
    assert settings.accuracy_floor is not None
    return GearsStatus(
        target_p99_ms=settings.target_p99_ms,
        accuracy_floor=settings.accuracy_floor,
        p99_ms=None if found.p99_s is None else round(1000 * found.p99_s, 1),
        gear=found.box.current,
        gears=list(found.box.gears),
        shifts=[
            ShiftAnswer(shift.at, shift.before, shift.after, shift.reason) for shift in found.shifts
        ],
        verified=found.box.verified,
    )


def _sentence(status: GearsStatus) -> str:
    gear = status.gears[status.gear]
    cost = gear.mean_macs / status.gears[0].mean_macs
    now = "" if status.p99_ms is None else f", now {status.p99_ms:g} ms"
    return (
        f"Gear {status.gear} of 0 to {len(status.gears) - 1}: {gear.accuracy:.2f} % accuracy at "
        f"{cost:.0%} of the cost of gear 0. Target: p99 of {status.target_p99_ms:g} ms{now}."
    )
