"""Liveness, readiness and metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from starlette.responses import Response

from serving.service import ServiceOf
from serving.telemetry.metrics import CONTENT_TYPE

ERROR = {"$ref": "#/components/schemas/ErrorAnswer"}
UNREADY: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "Not ready yet, or shutting down.",
        # `model` would document it as text, like the answer.
        "content": {"application/json": {"schema": ERROR}},
    }
}
router = APIRouter(tags=["probes"])


@router.get("/livez", response_class=PlainTextResponse)
async def livez() -> str:
    """Whether the process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse, responses=UNREADY)
async def readyz(service: ServiceOf) -> str:
    """Whether requests should be sent here."""
    service.require_ready()
    return "ok\n"


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: ServiceOf) -> Response:
    """Prometheus metrics."""
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
