"""What pydantic found wrong, in one sentence for a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names of parameters come from the client, at any length.
MAX_NAME_CHARS = 40


def sentence(detail: Mapping[str, Any], skip: int = 0) -> str:
    """`detail`, one of pydantic's errors, as a sentence; the first `skip` parts of its place are not the
    client's."""
    place = detail["loc"][skip:]
    if detail["type"] == "json_invalid":
        return "The body is not valid JSON."
    if detail["type"] == "extra_forbidden":
        return f"There is no parameter {str(place[-1])[:MAX_NAME_CHARS]!r} here."
    reason = str(detail["msg"]).removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if not place:
        return f"The body is not valid: {reason}."
    name = ".".join(str(part) for part in place)[:MAX_NAME_CHARS]
    return f"The parameter {name} is not valid: {reason}."
