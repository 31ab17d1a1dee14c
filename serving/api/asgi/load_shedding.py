"""Refusing requests for load by their heads alone, before the application sees them.

Through the application a refusal costs a tenth of what a small network's answer does: a flood of them would
take the time that answers need.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import Scope

from serving.api.asgi.completion import Completion, CompletionHook
from serving.api.asgi.fast_path import Endpoint, query_model, read_query
from serving.api.asgi.refusals import Refuse
from serving.api.query import ClassifyQuery, admit
from serving.errors import OverCapacityError, ServingError
from serving.service import Service


class LoadShedder:
    """Decides by a request's head whether it would be refused for load."""

    def __init__(
        self,
        service: Service,
        routes: Mapping[str, Endpoint],
        refuse: Refuse,
        hooks: Sequence[CompletionHook],
    ) -> None:
        """`routes`, `refuse` and `hooks` are those of `FastPathMiddleware` and `RequestContext`."""
        self._service = service
        self._models = {path: query_model(endpoint) for path, endpoint in routes.items()}
        self._refuse = refuse
        self._hooks = hooks

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that exceeds the server's capacity; None for any other, which is left to
        the application."""
        model = self._models.get(scope["path"])
        if model is None or scope["method"] != "POST":
            return None
        started = time.perf_counter()
        try:
            query = read_query(model, scope["query_string"])
            assert isinstance(query, ClassifyQuery)
            admit(query, scope, self._service)
        except OverCapacityError as error:
            response = self._refuse(scope, error)
        except (ServingError, RequestValidationError):
            return None
        else:
            return None
        completion = Completion(self._hooks, scope, started)
        response.raw_headers.append(completion.id_header)
        completion.notify(response.status_code)
        return response
