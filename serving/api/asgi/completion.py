"""The end of a request: its id, how long it took, and the hooks that are called with them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from random import getrandbits

from starlette.types import Scope

from serving.api.asgi.headers import header

REQUEST_ID = b"x-request-id"
USABLE_ID = re.compile(rb"[\x21-\x7e]{1,128}")

# Called once per request with its scope, id, status and duration in seconds.
CompletionHook = Callable[[Scope, str, int, float], None]


class Completion:
    """One request, from its start to the call of its hooks."""

    __slots__ = ("_hooks", "_scope", "_started", "request_id")

    def __init__(self, hooks: Sequence[CompletionHook], scope: Scope, started: float) -> None:
        """`started` is of `time.perf_counter()`."""
        self._hooks = list(hooks)
        self._scope = scope
        self._started = started
        self.request_id = request_id(scope)

    @property
    def id_header(self) -> tuple[bytes, bytes]:
        """The header of the response that carries the request's id."""
        return REQUEST_ID, self.request_id.encode("ascii")

    def notify(self, status: int) -> None:
        """Call each hook, unless it was called before."""
        while self._hooks:
            hook = self._hooks.pop()
            hook(self._scope, self.request_id, status, time.perf_counter() - self._started)


def request_id(scope: Scope) -> str:
    """The id of a request: the client's own if it is usable, else a new one."""
    own = header(scope, REQUEST_ID)
    # An id need not be secret, so the system's randomness is not needed.
    return own.decode("ascii") if USABLE_ID.fullmatch(own) else f"{getrandbits(128):032x}"
