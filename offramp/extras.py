"""Packages that only an optional extra installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from offramp.errors import MissingExtraError

OWN_PACKAGES = frozenset({"offramp", "training", "exports", "serving"})


@contextmanager
def needs_extra(extra: str, package: str | None = None) -> Iterator[None]:
    """Wraps the imports of packages that `offramp[extra]` installs.

    Raises MissingExtraError if one of them is missing; the message names `package`, or the missing
    package itself. A missing module of Offramp is a bug, and its error is not converted.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OWN_PACKAGES:
            raise
        raise MissingExtraError(package or missing, extra) from error
