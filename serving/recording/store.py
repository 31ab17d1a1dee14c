"""The directory of recorded requests: whole lines, files of bounded size, the oldest removed first."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from exports.tuning.requests.recorded import (
    Key,
    key_of,
    labels_file,
    record_files,
    whole_lines,
)
from offramp.file_lock import lock
from serving.errors import SettingsError

# Files in a full directory: removing the oldest frees this share of it.
FILES = 16
LOCK = ".lock"
_ID_START = b'{"id":'
_ID_END = b',"image":'


@dataclass
class _RecordFile:
    """A file of records with the hashes of its lines' ids, their offsets, and the labels of its records."""

    path: Path
    size: int = 0
    hashes: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    labels: dict[Key, int] = field(default_factory=dict)
    labels_size: int = 0

    @property
    def total(self) -> int:
        """Bytes of the records and their labels."""
        return self.size + self.labels_size

    def add(self, line: bytes) -> None:
        """Note a line that was written at the end."""
        self.hashes.append(hash(_id_of(line)))
        self.offsets.append(self.size)
        self.size += len(line)

    def find(self, request_id: bytes) -> Iterator[dict[str, Any]]:
        """The records whose id is the JSON `request_id`, the latest first."""
        found = np.flatnonzero(np.frombuffer(self.hashes, np.int64) == hash(request_id))
        for at in reversed(found.tolist()):
            end = self.offsets[at + 1] if at + 1 < len(self.offsets) else self.size
            with self.path.open("rb") as file:
                file.seek(self.offsets[at])
                line = file.read(end - self.offsets[at])
            if _id_of(line) == request_id:
                yield orjson.loads(line)


class RecordStore:
    """Appends records to a directory, and finds and labels them. One thread at a time may call it.

    Methods raise OSError if the directory cannot be written. What was written before stays readable.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Create `directory` if need be, and index what is in it.

        Raises SettingsError if it cannot be written, or if another server records into it.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_file_bytes = max_bytes // FILES
        self._open: int | None = None
        self._lock: int | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
            lock(self._lock, wait=False)
            self._files = [_index(path) for path in record_files(directory)]
        except (ValueError, KeyError) as error:
            raise SettingsError(
                f"{directory} has files that are not records of requests."
            ) from error
        except BlockingIOError as error:
            raise SettingsError(f"Another server records into {directory}.") from error
        except OSError as error:
            raise SettingsError(
                f"Requests cannot be recorded in {directory}: {error.strerror}."
            ) from error

    @property
    def max_line_bytes(self) -> int:
        """The largest line that can be written."""
        return self._max_file_bytes

    def append(self, lines: list[bytes]) -> None:
        """Write lines, each with its newline and at most `max_line_bytes` long."""
        while lines:
            if self._open is None or self._files[-1].size + len(lines[0]) > self._max_file_bytes:
                self._start_file()
            file = self._files[-1]
            count, size = 0, 0
            while count < len(lines) and file.size + size + len(lines[count]) <= (
                self._max_file_bytes
            ):
                size += len(lines[count])
                count += 1
            self._make_room(size)
            assert self._open is not None
            try:
                _write_whole(self._open, b"".join(lines[:count]), file.size)
            except OSError:
                # Another file, so that a line that could not be removed is the last of its file.
                self._close_file()
                if file.size == 0:
                    file.path.unlink(missing_ok=True)
                    self._files.remove(file)
                raise
            for line in lines[:count]:
                file.add(line)
            lines = lines[count:]

    def find(self, request_id: str, image: int) -> dict[str, Any] | None:
        """The latest record of an image, None if there is none."""
        wanted = orjson.dumps(request_id)
        for file in reversed(self._files):
            for record in file.find(wanted):
                if record["image"] == image:
                    return record
        return None

    def label(self, key: Key, label: int) -> bool:
        """Store the label of the record `key`; False if the record is gone. The same label again changes
        nothing."""
        wanted = orjson.dumps(key[0])
        for file in reversed(self._files):
            if not any(key_of(record) == key for record in file.find(wanted)):
                continue
            if file.labels.get(key) == label:
                return True
            request_id, image, time = key
            content = {"id": request_id, "image": image, "time": time, "label": label}
            line = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
            self._make_room(len(line))
            if file not in self._files:
                return False
            handle = os.open(labels_file(file.path), os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                _write_whole(handle, line, file.labels_size)
            finally:
                os.close(handle)
            file.labels_size += len(line)
            file.labels[key] = label
            return True
        return False

    def close(self) -> None:
        """Close the files."""
        self._close_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start_file(self) -> None:
        self._close_file()
        now = datetime.now(UTC)
        path = self._directory / f"requests-{now:%Y%m%dT%H%M%S.%fZ}.jsonl"
        self._open = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self._files.append(_RecordFile(path))

    def _close_file(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _make_room(self, size: int) -> None:
        """Remove the oldest files until `size` more bytes fit. The file being written stays."""
        while (
            len(self._files) > 1
            and sum(file.total for file in self._files) + size > self._max_bytes
        ):
            oldest = self._files[0].path
            oldest.unlink(missing_ok=True)
            labels_file(oldest).unlink(missing_ok=True)
            del self._files[0]


def _write_whole(handle: int, content: bytes, end: int) -> None:
    """Write `content` at the offset `end`, completely or, as far as the system allows, not at all."""
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(handle, content[written:], end + written)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, end)
        raise


def _index(path: Path) -> _RecordFile:
    """The index of a file that an earlier server wrote."""
    found = _RecordFile(path)
    for _, line in whole_lines(path):
        found.add(line)
    for offset, line in whole_lines(labels_file(path)):
        content = orjson.loads(line)
        found.labels[key_of(content)] = content["label"]
        found.labels_size = offset + len(line)
    return found


def _id_of(line: bytes) -> bytes:
    """The id of a record as it is in its line, in JSON. No JSON string contains the end that is sought."""
    return line[len(_ID_START) : line.index(_ID_END)]
