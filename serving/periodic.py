"""Work that runs on the event loop beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine


@contextlib.asynccontextmanager
async def in_background(work: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Run `work` within the block; at its end it is cancelled and waited for."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def repeat(
    interval_s: float, update: Callable[[], Awaitable[object]], log: logging.Logger, failed: str
) -> None:
    """Call `update` every `interval_s`. An exception is logged as `failed`, and the calls go on: one failure
    must not end a server's checks for good."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await update()
        except Exception:
            log.exception(failed)
