"""Probes for an orchestrator, and the metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from starlette.responses import Response

from serving.answers import ErrorAnswer
from serving.errors import DrainingError, NotReadyError
from serving.metrics import CONTENT_TYPE
from serving.service import ServiceOf

UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"model": ErrorAnswer, "description": "Not ready yet, or shutting down."}
}
router = APIRouter(tags=["probes"])


@router.get("/livez", response_class=PlainTextResponse)
async def livez() -> str:
    """Whether the process answers at all."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse, responses=UNREADY)
async def readyz(service: ServiceOf) -> str:
    """Whether requests should be sent here."""
    if service.phase == "starting":
        raise NotReadyError("The models are not loaded yet.")
    if service.phase == "draining":
        raise DrainingError("The server is shutting down.")
    if len(service.models) == 0:
        raise NotReadyError("No model is loaded.")
    return "ok\n"


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: ServiceOf) -> Response:
    """Prometheus metrics."""
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
