"""Notifying an allowed host that a job has finished."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from serving.errors import InvalidRequestError

log = logging.getLogger("offramp.jobs")
TIMEOUT_S = 5.0
# Seconds before each attempt.
WAITS_S = (0.0, 1.0, 10.0)
CONNECTIONS: dict[str, type[http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}


def check_address(address: str, hosts: Collection[str]) -> None:
    """Raise InvalidRequestError unless `address` is http or https to one of `hosts`, port included."""
    try:
        parts = urlsplit(address)
        # Raises ValueError for a port that is none.
        valid = parts.scheme in CONNECTIONS and parts.port != 0 and address.isprintable()
    except ValueError:
        valid = False
    if not valid or not address.isascii() or " " in address:
        raise InvalidRequestError(
            "The callback must be an address such as https://example.org/done."
        )
    if parts.netloc.lower() not in hosts:
        raise InvalidRequestError(
            "The callback's host is not among those that the server was started with "
            "(--job-callback-host)."
        )


def send(address: str, body: bytes) -> bool:
    """POST the JSON `body` to `address`; whether the answer is 2xx. Redirects are not followed."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    connection = CONNECTIONS[parts.scheme](parts.hostname, parts.port, timeout=TIMEOUT_S)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        log.warning("a callback to %s failed: %s", parts.netloc, error)
        return False
    finally:
        connection.close()
    if not 200 <= status < 300:
        log.warning("a callback to %s was answered with %d", parts.netloc, status)
    return 200 <= status < 300
