"""Controlling the stages of a server in the test process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serving.service import Service
from tests.serving.scheduling.harness import Stage


def stage_of(service: Service) -> Stage:
    """The stages of the first model, which can be blocked."""
    return Stage(service.models.get(None).engine)


def hold(service: Service, at: int) -> Stage:
    """Block samples from stage `at` on until the returned stage is opened."""
    stage = stage_of(service)
    stage.hold_at = at
    stage.open.clear()
    return stage


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until `condition` is true; fail after `seconds`."""
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end
        await asyncio.sleep(0.005)
