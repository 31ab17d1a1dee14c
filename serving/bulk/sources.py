"""Which files to classify: files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from offramp.images.formats import SUFFIXES
from serving.bulk.errors import BulkError


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The files that `arguments` name, each once: files, all images below folders, and what globs match.

    Folders are read in the order of names. Raises BulkError if an argument names nothing.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        files = list(_files_of(argument))
        if not files:
            raise BulkError(f"There are no image files in {argument}.")
        found.update(dict.fromkeys(files))
    return list(found)


def _files_of(argument: str) -> Iterator[Path]:
    if os.path.lexists(argument):
        yield from _below(Path(argument))
    elif glob.has_magic(argument):
        for name in sorted(glob.iglob(argument, recursive=True)):
            yield from _below(Path(name))
    else:
        raise BulkError(f"{argument} cannot be read: No such file or directory.")


def _below(path: Path) -> Iterator[Path]:
    """`path` if it is a file; the images below it if it is a folder."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(folder, name)
