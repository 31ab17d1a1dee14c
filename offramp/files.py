"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offramp.errors import WriteError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name to write to, and puts that file in the place of `path` once it is on the disk.

    If writing fails the half-written file is removed and `path` stays as it was; a full disk raises
    WriteError. A kill leaves at most the half-written file, which the next writer replaces.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(
            f"{path} cannot be written ({error.strerror or error}); "
            "what stood there before is kept."
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync(directory: Path) -> None:
    """Make the last renaming in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
