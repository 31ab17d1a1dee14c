"""Runs jobs one after the other, a few groups of images at once, and notifies hosts of finished ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from offramp.errors import WriteError
from serving.errors import InternalError, InvalidRequestError, ServingError
from serving.jobs.callbacks import WAITS_S, check_address, send
from serving.jobs.images import StoredImage, group_images, read_images, stored_images
from serving.jobs.job import Delivery, Job, Results, Row
from serving.jobs.metrics import JobMetrics
from serving.jobs.store import JobStore

log = logging.getLogger("offramp.jobs")
# After an error of the disk.
RETRY_S = 5.0
# How often expired results are looked for: four times in the time they are kept, within these bounds.
MIN_SWEEP_S, MAX_SWEEP_S = 0.1, 60.0

# Classifies a group of a job: (job, number of the first image, the images, their contents).
Classify = Callable[[Job, int, Sequence[StoredImage], Sequence[bytes]], Awaitable[list[Row]]]


class JobRunner:
    """Runs the jobs of a store until cancelled. All methods belong to the event loop."""

    def __init__(
        self,
        store: JobStore,
        metrics: JobMetrics,
        classify: Classify,
        describe: Callable[[Job], bytes],
        *,
        groups: int,
        hosts: Sequence[str],
        keep_s: float,
        stopping: Callable[[], bool],
    ) -> None:
        """`groups` of a job are in flight at once. `describe` is the body of a job's callback, `hosts` those
        that may get one. Once `stopping` returns True nothing more is started."""
        self._store = store
        self._metrics = metrics
        self._classify = classify
        self._describe = describe
        self._groups = groups
        self._hosts = hosts
        self._stopping = stopping
        self._sweep_s = min(max(keep_s / 4, MIN_SWEEP_S), MAX_SWEEP_S)
        self._wake = asyncio.Event()
        self._current: tuple[Job, asyncio.Task[None]] | None = None
        self._deliveries: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run jobs as they come, until cancelled or stopping. The rows that are written stay."""
        for job in self._store.jobs():
            if job.outcome is not None and job.outcome.delivery == "pending":
                self._start_delivery(job)
        sweeping = asyncio.create_task(self._sweep())
        try:
            while not self._stopping():
                waiting = self._store.next_queued()
                if waiting is None:
                    self._wake.clear()
                    await self._wake.wait()
                else:
                    await self._run_one(waiting)
        finally:
            running = [sweeping, *self._deliveries]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def wake(self) -> None:
        """A job was queued."""
        self._wake.set()

    async def delete(self, job: Job) -> None:
        """Stop `job` and delete it with its results."""
        if self._current is not None and self._current[0] is job:
            self._current[1].cancel()
            await asyncio.wait([self._current[1]])
        if job.deleted:
            # Another request was faster.
            return
        if job.unfinished:
            self._metrics.ended("deleted")
        self._store.remove(job)

    async def _run_one(self, job: Job) -> None:
        task = asyncio.create_task(self._run_job(job))
        self._current = (job, task)
        try:
            # Not `await task`: `delete` cancels the task alone.
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        except (OSError, WriteError) as error:
            log.error("job %s waits for the disk: %s", job.request.id, error)
            await asyncio.sleep(RETRY_S)
            if not job.deleted:
                self._store.postpone(job)
        finally:
            self._current = None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, WriteError):
                await task

    async def _run_job(self, job: Job) -> None:
        job.running = True
        error: ServingError | None = None
        try:
            images = await asyncio.to_thread(stored_images, job.directory)
            with contextlib.closing(await asyncio.to_thread(Results, job)) as results:
                await self._classify_all(job, images, results)
        except (OSError, WriteError):
            raise
        except ServingError as wrong:
            error = wrong
        except Exception:
            log.exception("job %s failed", job.request.id)
            error = InternalError()
        delivery: Delivery | None = "pending" if job.request.callback else None
        await asyncio.to_thread(job.end, error, delivery)
        self._metrics.ended(job.state)
        if delivery is not None:
            self._start_delivery(job)
        self._store.make_room(0)

    async def _classify_all(
        self, job: Job, images: Sequence[StoredImage], results: Results
    ) -> None:
        running: deque[asyncio.Task[list[Row]]] = deque()
        first = job.done
        try:
            for members in group_images(images[first:]):
                if self._stopping():
                    # What has no row yet is done after the next start.
                    raise asyncio.CancelledError
                running.append(asyncio.create_task(self._classify_group(job, first, members)))
                first += len(members)
                if len(running) == self._groups:
                    await asyncio.to_thread(results.append, await running.popleft())
            while running:
                await asyncio.to_thread(results.append, await running.popleft())
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _classify_group(
        self, job: Job, first: int, images: Sequence[StoredImage]
    ) -> list[Row]:
        contents = await asyncio.to_thread(read_images, job.directory, images)
        return await self._classify(job, first, images, contents)

    def _start_delivery(self, job: Job) -> None:
        task = asyncio.create_task(self._deliver(job))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, job: Job) -> None:
        """Send the callback of a finished job; a restart before it was delivered sends it again."""
        address = job.request.callback
        assert address is not None
        assert job.outcome is not None
        delivered = False
        try:
            check_address(address, self._hosts)
            for wait in WAITS_S:
                await asyncio.sleep(wait)
                delivered = await asyncio.to_thread(send, address, self._describe(job))
                if delivered or job.deleted:
                    break
        except InvalidRequestError as error:
            # The server was started again with other hosts.
            log.warning("job %s: %s", job.request.id, error)
        delivery: Delivery = "delivered" if delivered else "failed"
        self._metrics.callback(delivery)
        if not job.deleted:
            try:
                await asyncio.to_thread(job.write_outcome, replace(job.outcome, delivery=delivery))
            except (OSError, WriteError) as error:
                log.error("job %s: %s", job.request.id, error)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            self._store.make_room(0)
