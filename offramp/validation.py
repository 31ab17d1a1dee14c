"""Validation errors of pydantic as readable messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# Field names may come from a request, at any length.
MAX_PART_CHARS = 100


class HasErrors(Protocol):
    """pydantic's ValidationError, or FastAPI's RequestValidationError."""

    def errors(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Problem:
    """One validation error: pydantic's `kind`, the path to the value, and the reason without full stop."""

    kind: str
    place: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """`network.exits: must increase`, or only the reason if the path is empty."""
        return f"{'.'.join(self.place)}: {self.reason}" if self.place else self.reason


def first_problem(error: HasErrors, skip: int = 0) -> Problem:
    """The first problem in `error`; the first `skip` parts of its path are left out."""
    detail: Mapping[str, Any] = error.errors()[0]
    place = tuple(str(part)[:MAX_PART_CHARS] for part in detail["loc"][skip:])
    if detail["type"] == "union_tag_not_found":  # pydantic's sentence is about its own tags
        place = (*place, str(detail["ctx"]["discriminator"]).strip("'"))
        return Problem("missing", place, "Field required")
    return Problem(str(detail["type"]), place, str(detail["msg"]).removeprefix("Value error, "))
