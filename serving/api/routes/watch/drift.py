"""GET /v1/models/{name}/drift: whether answers still resemble the calibration table."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from pydantic.dataclasses import dataclass

from serving.api.routes.models import UNKNOWN_MODEL
from serving.drift.state import DriftStatus
from serving.service import ServiceOf

router = APIRouter(prefix="/v1/models/{name}", tags=["models"])


@dataclass(frozen=True)
class DriftAnswer:
    """The state of a model's tests for drift: in a sentence, and in numbers. `status` is null until the
    tests have started, a second after a policy or a model was put in force, or without a readable table."""

    sentence: str
    status: DriftStatus | None = Field(description="Null while no test runs.")


@router.get("/drift", responses=UNKNOWN_MODEL)
async def get_drift(name: str, service: ServiceOf) -> DriftAnswer:
    """Whether answers still resemble the calibration table's, by sequential tests on this server."""
    status = service.drift.status(service.models.get(name))
    if status is None:
        return DriftAnswer("No test for drift runs yet.", None)
    return DriftAnswer(status.sentence, status)
