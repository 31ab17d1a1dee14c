"""What pydantic found wrong, in words for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# Names come from outside, at any length.
MAX_PART_CHARS = 100


class HasErrors(Protocol):
    """pydantic's ValidationError, or FastAPI's RequestValidationError."""

    def errors(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Problem:
    """One fault: pydantic's `kind` of it, the path to the value, and the reason without a full stop."""

    kind: str
    place: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """`network.exits: must increase`, or the reason alone where the whole value is at fault."""
        return f"{'.'.join(self.place)}: {self.reason}" if self.place else self.reason


def first_problem(error: HasErrors, skip: int = 0) -> Problem:
    """The first fault of `error`, without the first `skip` parts of its path."""
    detail: Mapping[str, Any] = error.errors()[0]
    place = tuple(str(part)[:MAX_PART_CHARS] for part in detail["loc"][skip:])
    return Problem(str(detail["type"]), place, str(detail["msg"]).removeprefix("Value error, "))
