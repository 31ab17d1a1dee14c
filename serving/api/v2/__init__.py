"""The Open Inference Protocol, version 2."""

from __future__ import annotations

from fastapi import APIRouter

from serving.api.v2 import infer, metadata, repository

router = APIRouter(tags=["open inference protocol"])
for module in (metadata, infer, repository):
    router.include_router(module.router)
