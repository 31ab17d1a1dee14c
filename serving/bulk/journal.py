"""The rows of an unfinished run on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from offramp.errors import WriteError
from offramp.files import lock_file
from serving.bulk.errors import BulkError


class Journal:
    """A file of JSON lines beside the output: what the run depends on, then a row per image.

    `done` are the files that have a row, `failed` is the number of those with an error. A line that a
    kill has cut off is removed when the journal is opened. One process at a time can have it open.
    """

    def __init__(self, output: Path, run: Mapping[str, Any]) -> None:
        """Open the journal of `output`, or create it; `run` is what the rows depend on.

        Raises BulkError if it was written by another run, or if `output` exists without a journal;
        WriteError if it cannot be written or another process has it open.
        """
        self.path = output.with_name(f"{output.name}.journal")
        self.done: set[str] = set()
        self.failed = 0
        if not self.path.exists() and os.path.lexists(output):
            raise BulkError(f"{output} exists already; choose another name or move it away.")
        try:
            # Python closes it with the object if what follows fails.
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        lock_file(self._file.fileno(), self.path)
        whole = self._read(run)
        self._file.truncate(whole)
        if whole == 0:
            self._write(orjson.dumps(run, option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, lines: Sequence[bytes]) -> None:
        """Add the lines of rows; raises WriteError. They survive a kill of the process."""
        self._write(b"".join(lines))

    def lines(self) -> Iterator[bytes]:
        """The lines of all rows."""
        with self.path.open("rb") as file:
            next(file)
            yield from file

    def remove(self) -> None:
        """Delete the journal: the output is whole."""
        self.path.unlink()

    def _read(self, run: Mapping[str, Any]) -> int:
        """Read the rows; returns the bytes up to the end of the last whole line."""
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    content = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise BulkError(f"{self.path} is damaged; delete it to start again.") from error
                if whole == 0 and content != run:
                    raise BulkError(
                        f"{self.path} is of a run with another bundle or other options; delete it to "
                        "start again."
                    )
                if whole > 0:
                    self.done.add(content["file"])
                    self.failed += "error" in content["predictions"][0]
                whole += len(line)
        return whole

    def _write(self, content: bytes) -> None:
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> WriteError:
        return WriteError(
            f"{self.path} cannot be written ({error.strerror or error}); run the command again to go on."
        )
