"""Work beside the requests goes on after a failure, and ends with its block."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from serving.periodic import in_background, repeat
from tests.serving.stages import until

log = logging.getLogger("offramp.test")


def test_a_failure_is_logged_and_the_calls_go_on(caplog: Any) -> None:
    calls: list[int] = []

    async def fail() -> None:
        calls.append(1)
        raise ValueError("broken")

    async def scenario() -> None:
        async with in_background(repeat(0.0, fail, log, "a check failed; the checks go on")):
            await until(lambda: len(calls) >= 2)

    with caplog.at_level(logging.ERROR, log.name):
        asyncio.run(scenario())
    assert "a check failed; the checks go on" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_the_work_ends_with_its_block_even_if_that_fails() -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def scenario() -> None:
        async with in_background(work()):
            await asyncio.sleep(0)
            raise KeyError

    try:
        asyncio.run(scenario())
    except KeyError:
        ended.append(False)
    assert ended == [True, False]
