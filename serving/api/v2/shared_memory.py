"""Triton's shared-memory extensions, which are not supported: clients may be on another machine."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from serving.api.v2.common import PREFIX
from serving.errors import NotSupportedError

router = APIRouter(include_in_schema=False)


@router.api_route(PREFIX + "/systemsharedmemory/{path:path}", methods=["GET", "POST"])
@router.api_route(PREFIX + "/cudasharedmemory/{path:path}", methods=["GET", "POST"])
async def shared_memory(path: str) -> Response:
    """Raises NotSupportedError."""
    raise NotSupportedError("This server does not support shared memory.")
