"""When a request is sent again, and after how long."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

# Over capacity, a proxy without a server behind it, not ready. Classifying twice does no harm.
RETRIED_STATUSES = frozenset({429, 502, 503})
# Not timeouts of reading: the server may still be working on the request.
RETRIED_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
)


@dataclass(frozen=True)
class RetryPolicy:
    """At most `attempts` of a request. Before the next one it waits for what `Retry-After` says, or else
    for `backoff_s`, doubled with each attempt; up to half of that more, at random. If the server asks for
    longer than `max_wait_s`, its error is raised at once."""

    attempts: int = 5
    backoff_s: float = 0.1
    max_wait_s: float = 30.0

    def wait(self, attempt: int, result: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the attempt after `attempt`, which counts from 1 and ended with `result`; None if
        there is none."""
        if attempt >= self.attempts:
            return None
        after = None
        if isinstance(result, httpx.Response):
            if result.status_code not in RETRIED_STATUSES:
                return None
            after = retry_after(result)
        elif not isinstance(result, RETRIED_ERRORS):
            return None
        backoff = min(self.backoff_s * 2.0 ** (attempt - 1), self.max_wait_s)
        jitter = random.uniform(0, backoff / 2)
        if after is None:
            return backoff + jitter
        return after + jitter if after <= self.max_wait_s else None


def retry_after(response: httpx.Response) -> float | None:
    """The seconds in `Retry-After`, which has a number or a date; None without a valid one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
