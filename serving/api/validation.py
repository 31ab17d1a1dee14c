"""pydantic's errors in one sentence for the client."""

from __future__ import annotations

from offramp.validation import HasErrors, first_problem

# Of a parameter's name in a sentence; clients choose the names.
MAX_NAME_CHARS = 40


def sentence(error: HasErrors, skip: int = 0) -> str:
    """The first problem of `error`; the first `skip` parts of its path are left out."""
    problem = first_problem(error, skip)
    if problem.kind == "json_invalid":
        return "The body is not valid JSON."
    if problem.kind == "extra_forbidden":
        return f"There is no parameter {problem.place[-1][:MAX_NAME_CHARS]!r} here."
    reason = problem.reason[:1].lower() + problem.reason[1:]
    if not problem.place:
        return f"The body is not valid: {reason}."
    name = ".".join(problem.place)[:MAX_NAME_CHARS]
    return f"The parameter {name} is not valid: {reason}."
