"""How layers below FastAPI have an error answered."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import Scope

from serving.errors import ServingError

# Counts an error of the request with this scope, and returns the answer.
Refuse = Callable[[Scope, ServingError | RequestValidationError], Response]
