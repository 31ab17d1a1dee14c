"""Names of files as text. A name may be any bytes: old archives have names that are not UTF-8."""

from __future__ import annotations

import os


def shown_name(path: str | os.PathLike[str]) -> str:
    """The path as text that can be printed; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether the path is UTF-8, so that it can be written to TOML and JSON."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
