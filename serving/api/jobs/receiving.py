"""Receiving a job: its body is written to disk, unpacked within limits, and stored whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from offramp.errors import WriteError
from offramp.files import new_directory
from serving.api.jobs.answers import JobQuery
from serving.errors import InvalidRequestError, JobStorageError, TooLargeError
from serving.jobs.archives import read_archive
from serving.jobs.images import ImageWriter
from serving.jobs.job import Job, JobRequest, open_job, write_request
from serving.jobs.multipart import read_multipart
from serving.jobs.store import JobStore, Upload
from serving.settings import Settings

log = logging.getLogger("offramp.jobs")
# Of a body, before it is written to the disk.
BUFFER_BYTES = 1 << 20


async def receive_job(
    stream: AsyncIterator[bytes],
    boundary: bytes | None,
    query: JobQuery,
    store: JobStore,
    settings: Settings,
    length: int,
    client: str | None = None,
) -> Job:
    """Store the images of a body of about `length` bytes and queue them as a job of `client`. The body is
    multipart with `boundary`, or an archive.

    Raises InvalidRequestError, UnsupportedTypeError, TooLargeError, OverCapacityError and JobStorageError;
    then nothing of it is left.
    """
    if length > settings.job_max_bytes:
        raise TooLargeError(f"The body is larger than the {settings.job_max_bytes} bytes allowed.")
    # The body, and its images once unpacked.
    with store.receiving(2 * length) as upload:
        try:
            await _write_body(stream, upload, store)
            job = await asyncio.to_thread(_unpack, upload, boundary, query, store, settings, client)
        except (OSError, WriteError) as error:
            log.error("a job cannot be stored: %s", error)
            raise JobStorageError(
                "The job cannot be stored now; the server's log says why."
            ) from error
    store.add(job)
    return job


async def _write_body(stream: AsyncIterator[bytes], upload: Upload, store: JobStore) -> None:
    buffer = bytearray()
    with upload.body.open("wb") as file:
        async for chunk in stream:
            store.claim(upload, len(chunk))
            buffer += chunk
            if len(buffer) >= BUFFER_BYTES:
                await asyncio.to_thread(file.write, bytes(buffer))
                buffer.clear()
        await asyncio.to_thread(file.write, bytes(buffer))


def _unpack(
    upload: Upload,
    boundary: bytes | None,
    query: JobQuery,
    store: JobStore,
    settings: Settings,
    client: str | None,
) -> Job:
    target = store.directory / upload.id
    with new_directory(target) as part:
        images = ImageWriter(
            part,
            max_images=settings.job_max_images,
            max_image_bytes=settings.max_body_bytes,
            max_bytes=settings.job_max_bytes,
            claim=lambda size: store.claim(upload, size),
        )
        with contextlib.closing(images), upload.body.open("rb") as body:
            if boundary is not None:
                read_multipart(body, boundary, images)
            else:
                read_archive(body, images, settings.job_max_images, settings.job_max_bytes)
        if images.count == 0:
            raise InvalidRequestError("The body has no images.")
        options = query.model_dump(mode="json", exclude={"callback"}, exclude_none=True)
        accepted = time.time()
        request = JobRequest(upload.id, options, query.callback, images.count, accepted, client)
        write_request(part, request)
    return open_job(target)
