"""A job and its files: what was asked for, the rows so far, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from offramp.files import write_whole
from serving.errors import ServingError
from serving.jobs.images import CONTENTS, INDEX

REQUEST = "job.json"
RESULTS = "results.jsonl"
OUTCOME = "outcome.json"

State = Literal["queued", "running", "done", "failed"]
Delivery = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True)
class JobRequest:
    """What a job was asked for: the options of its query as they were given, the address to notify, the
    number of images, and when it was accepted, in seconds since 1970; `client` is whose budget it spends,
    None without budgets."""

    id: str
    query: Mapping[str, Any]
    callback: str | None
    images: int
    created: float
    client: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and when; `error` is a sentence and a code. `delivery` is of its callback."""

    state: State
    finished: float
    done: int
    failed: int
    error: tuple[str, str] | None
    delivery: Delivery | None


@dataclass(frozen=True)
class Row:
    """A line of the results, and whether it has an error in place of a prediction."""

    line: bytes
    failed: bool


@dataclass(eq=False)
class Job:
    """A job in `directory`: `done` images have a row, `failed` of them one with an error. `written` is the
    bytes of the rows, `size` those on disk of everything."""

    request: JobRequest
    directory: Path
    size: int = 0
    running: bool = False
    done: int = 0
    failed: int = 0
    written: int = 0
    outcome: Outcome | None = None
    deleted: bool = False

    @property
    def state(self) -> State:
        """Whether it waits, runs, or how it ended."""
        if self.outcome is not None:
            return self.outcome.state
        return "running" if self.running else "queued"

    @property
    def unfinished(self) -> bool:
        """Whether it waits or runs."""
        return self.outcome is None

    @property
    def results(self) -> Path:
        """The file of rows, one per image that is done."""
        return self.directory / RESULTS

    def end(self, error: ServingError | None, delivery: Delivery | None) -> None:
        """Write the outcome, then delete the images; raises WriteError or OSError."""
        state: State = "done" if error is None else "failed"
        reason = None if error is None else (str(error), error.code)
        outcome = Outcome(state, time.time(), self.done, self.failed, reason, delivery)
        write_whole(self.directory / OUTCOME, orjson.dumps(outcome))
        _remove_images(self.directory)
        self.size = _size(self.directory)
        # Last: the store may remove a job that has one.
        self.outcome = outcome

    def write_outcome(self, outcome: Outcome) -> None:
        """Write `outcome` in place of an earlier one; raises WriteError."""
        write_whole(self.directory / OUTCOME, orjson.dumps(outcome))
        self.outcome = outcome


def write_request(directory: Path, request: JobRequest) -> None:
    """Write what was asked for into the new `directory` of a job."""
    (directory / REQUEST).write_bytes(orjson.dumps(request))


def open_job(directory: Path) -> Job:
    """The job in `directory`; raises OSError, or ValueError or TypeError if its files are damaged."""
    request = JobRequest(**orjson.loads((directory / REQUEST).read_bytes()))
    ended = (directory / OUTCOME).exists()
    if ended:
        # A kill may have left them.
        _remove_images(directory)
    job = Job(request, directory, _size(directory))
    if ended:
        content = orjson.loads((directory / OUTCOME).read_bytes())
        error = content.pop("error")
        job.outcome = Outcome(**content, error=None if error is None else (error[0], error[1]))
        job.done, job.failed = job.outcome.done, job.outcome.failed
        job.written = job.results.stat().st_size if job.results.exists() else 0
    else:
        # Counts the rows.
        Results(job).close()
    return job


class Results:
    """Appends rows to a job's results. A line that a kill has cut off is removed first."""

    def __init__(self, job: Job) -> None:
        """Open the results and count the rows in `job`; raises OSError."""
        self._job = job
        whole = job.done = job.failed = 0
        self._file: IO[bytes] = job.results.open("a+b", buffering=0)
        self._file.seek(0)
        with job.results.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                job.done += 1
                job.failed += "error" in orjson.loads(line)["predictions"][0]
        self._file.truncate(whole)
        job.written = whole

    def append(self, rows: Sequence[Row]) -> None:
        """Write `rows` whole; raises OSError. They survive a kill of the process."""
        content = memoryview(b"".join(row.line for row in rows))
        size = len(content)
        while content:
            content = content[self._file.write(content) :]
        self._job.done += len(rows)
        self._job.failed += sum(row.failed for row in rows)
        self._job.size += size
        self._job.written += size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _remove_images(directory: Path) -> None:
    for name in (CONTENTS, INDEX):
        (directory / name).unlink(missing_ok=True)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())
