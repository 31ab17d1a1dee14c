"""The Open Inference Protocol, version 2."""

from __future__ import annotations

from fastapi import APIRouter

from serving.api.v2 import (
    configuration,
    infer,
    metadata,
    repository,
    shared_memory,
    statistics,
)

router = APIRouter(tags=["open inference protocol"])
# Statistics come first: an address of theirs looks like a model's.
for module in (statistics, metadata, configuration, infer, repository, shared_memory):
    router.include_router(module.router)
