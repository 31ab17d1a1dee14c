"""Turning requests to classify away while there is no room, before anything else is done with them.

On the way of other requests a refusal costs a tenth of what a small network's answer does: a flood of them
would take the time that the answers need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import Scope

from serving.api.fast_path import Endpoint, query_model, read_query
from serving.api.middleware import REQUEST_ID, Finished, request_id
from serving.api.query import ClassifyQuery, admit
from serving.errors import OverCapacityError, ServingError
from serving.service import Service

Refuse = Callable[[Scope, ServingError], Response]


class LoadShedder:
    """Says of a request's head alone whether it would be refused for lack of room."""

    def __init__(
        self,
        service: Service,
        routes: Mapping[str, Endpoint],
        refuse: Refuse,
        finished: Sequence[Finished],
    ) -> None:
        """`routes`, `refuse` and `finished` are those of `FastPathMiddleware` and `RequestContext`."""
        self._service = service
        self._models = {path: query_model(endpoint) for path, endpoint in routes.items()}
        self._refuse = refuse
        self._finished = finished

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that there is no room for; None for any other, of which the app makes
        what it makes of it."""
        kind = self._models.get(scope["path"])
        if kind is None or scope["method"] != "POST":
            return None
        began = time.perf_counter()
        try:
            query = read_query(kind, scope["query_string"])
            assert isinstance(query, ClassifyQuery)
            admit(query, scope, self._service)
        except OverCapacityError as error:
            response = self._refuse(scope, error)
        except (ServingError, RequestValidationError):
            return None
        else:
            return None
        name = request_id(scope)
        response.raw_headers.append((REQUEST_ID, name.encode("ascii")))
        for notify in self._finished:
            notify(scope, name, response.status_code, time.perf_counter() - began)
        return response
