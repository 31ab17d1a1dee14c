"""The directory of jobs: accepted ones survive a restart, finished ones are kept for a time and a size."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from offramp.errors import WriteError
from offramp.files import lock_file
from serving.errors import NotFoundError, OverCapacityError, SettingsError
from serving.jobs.job import Job, open_job
from serving.settings import Settings

log = logging.getLogger("offramp.jobs")
LOCK = ".lock"
# Bodies that are being received begin with it, as do directories that are being written.
TEMPORARY = "."
UPLOAD = ".upload-"
# How soon to try again where jobs are refused; jobs take seconds to minutes.
RETRY_AFTER_S = 10.0


@dataclass(eq=False)
class Upload:
    """A job that is being received: its id, its body on disk, and the bytes claimed for it."""

    id: str
    body: Path
    claimed: int = field(default=0)


class JobStore:
    """The jobs of a directory, in the order in which they were accepted.

    Only `claim` may be called by any thread, and may remove results; the rest belongs to the event loop.
    """

    def __init__(self, directory: Path, settings: Settings) -> None:
        """Open `directory`, or create it: jobs in it that are not finished are queued.

        Raises SettingsError if it cannot be used, or if another server uses it.
        """
        self.directory = directory
        self._settings = settings
        self._uploads: set[Upload] = set()
        self._claimed = 0
        # Of changes of what is on the disk: `claim` and `remove` call each other.
        self._lock = threading.RLock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = (directory / LOCK).open("ab")
            lock_file(self._lock_file.fileno(), directory / LOCK)
            _remove_temporary(directory)
            found = sorted(_open_jobs(directory), key=lambda job: job.request.created)
        except WriteError as error:
            raise SettingsError(f"Another server uses the jobs in {directory}.") from error
        except OSError as error:
            raise SettingsError(
                f"Jobs cannot be stored in {directory}: {error.strerror}."
            ) from error
        self._jobs = {job.request.id: job for job in found}

    @property
    def unfinished(self) -> int:
        """The number of jobs that wait or run."""
        return sum(job.unfinished for job in self.jobs())

    @property
    def size(self) -> int:
        """The bytes of all jobs, and of those being received."""
        return self._claimed + sum(job.size for job in self.jobs())

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first."""
        return list(self._jobs.values())

    def next_queued(self) -> Job | None:
        """The oldest job that waits."""
        return next((job for job in self.jobs() if job.state == "queued"), None)

    def get(self, id_: str) -> Job:
        """The job `id_`; raises NotFoundError if there is none, or none any more."""
        job = self._jobs.get(id_)
        if job is None or self._expired(job):
            raise NotFoundError("There is no such job.")
        return job

    @contextlib.contextmanager
    def receiving(self, expected: int) -> Iterator[Upload]:
        """A job that will claim about `expected` bytes; its body and claims end with the context.

        Raises OverCapacityError if there are as many jobs as allowed, or would be too many bytes even
        without results. Nothing is removed before bytes are claimed: a client may never send them.
        """
        if self.unfinished + len(self._uploads) >= self._settings.jobs_max_unfinished:
            raise OverCapacityError("The server has as many jobs as it allows.", RETRY_AFTER_S)
        self._check_room(expected)
        id_ = secrets.token_hex(16)
        upload = Upload(id_, self.directory / f"{UPLOAD}{id_}")
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            self._uploads.discard(upload)
            with self._lock:
                self._claimed -= upload.claimed
            upload.body.unlink(missing_ok=True)

    def claim(self, upload: Upload, size: int) -> None:
        """Claim `size` bytes more for `upload`; the oldest results make room.

        Raises OverCapacityError if that does not suffice, and then removes nothing.
        """
        with self._lock:
            if self.size + size > self._settings.jobs_max_bytes:
                self._check_room(size)
                self.make_room(size)
            self._claimed += size
            upload.claimed += size

    def add(self, job: Job) -> None:
        """Queue a job whose directory is complete."""
        self._jobs[job.request.id] = job

    def postpone(self, job: Job) -> None:
        """Queue `job` behind the others."""
        with self._lock:
            self._jobs[job.request.id] = self._jobs.pop(job.request.id)
        job.running = False

    def remove(self, job: Job) -> None:
        """Remove `job`, with its files; a second call does nothing."""
        with self._lock:
            if job.deleted:
                return
            job.deleted = True
            self._jobs.pop(job.request.id, None)
            # First what names it, so that a kill leaves nothing that looks like a job.
            gone = job.directory.with_name(f"{TEMPORARY}{job.request.id}")
            try:
                job.directory.rename(gone)
                shutil.rmtree(gone)
            except OSError as error:
                log.error("the job in %s cannot be deleted: %s", job.directory, error)

    def make_room(self, size: int) -> None:
        """Remove what has expired, and the oldest results until there is room for `size` bytes, or none is
        left."""
        with self._lock:
            excess = self.size + size - self._settings.jobs_max_bytes
            for job in self.jobs():
                if not job.unfinished and (excess > 0 or self._expired(job)):
                    excess -= job.size
                    self.remove(job)

    def expires(self, job: Job) -> float | None:
        """When the results of `job` are removed, in seconds since 1970; None before it has finished."""
        if job.outcome is None:
            return None
        return job.outcome.finished + self._settings.jobs_keep_seconds

    def close(self) -> None:
        """Let another server use the directory."""
        self._lock_file.close()

    def _check_room(self, size: int) -> None:
        """Raise OverCapacityError if there is no room for `size` bytes even without results."""
        kept = self._claimed + sum(job.size for job in self.jobs() if job.unfinished)
        if kept + size > self._settings.jobs_max_bytes:
            raise _full()

    def _expired(self, job: Job) -> bool:
        expires = self.expires(job)
        return expires is not None and expires <= time.time()


def _full() -> OverCapacityError:
    return OverCapacityError("The server has as many bytes of jobs as it allows.", RETRY_AFTER_S)


def _remove_temporary(directory: Path) -> None:
    """Remove what a killed server was receiving or deleting."""
    for path in directory.iterdir():
        if path.name != LOCK and path.name.startswith(TEMPORARY):
            shutil.rmtree(path) if path.is_dir() else os.unlink(path)


def _open_jobs(directory: Path) -> Iterator[Job]:
    for path in directory.iterdir():
        if path.name.startswith(TEMPORARY):
            continue
        try:
            yield open_job(path)
        except (OSError, ValueError, TypeError) as error:
            log.error("%s is not a job and is left alone: %s", path, error)
