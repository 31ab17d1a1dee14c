"""What `serving.http` uses of uvicorn beyond its documented interface, and the check that it is there.

README.md in this folder gives the reason for each name.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn

from offramp.errors import OfframpError

# The range in pyproject.toml. Its oldest and newest versions are tested.
SUPPORTED_VERSIONS = ">=0.45,<0.55"


class UnsupportedUvicornError(OfframpError):
    """The installed uvicorn lacks something that the server overrides or uses."""


@dataclass(frozen=True)
class Internals:
    """A name of `module`; of a class, methods that are overridden or called, and attributes that are read."""

    module: str
    name: str
    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


INTERNALS = (
    Internals(
        "uvicorn.protocols.http.httptools_impl",
        "HttpToolsProtocol",
        methods=(
            "connection_made",
            "connection_lost",
            "data_received",
            "eof_received",
            "on_message_begin",
            "on_url",
            "on_header",
            "on_headers_complete",
            "on_body",
            "on_message_complete",
            "on_response_complete",
            "send_400_response",
            "_start_asgi_task",
            "_unset_keepalive_if_required",
        ),
        attributes=(
            "config",
            "loop",
            "parser",
            "connections",
            "transport",
            "flow",
            "pipeline",
            "scope",
            "headers",
            "expect_100_continue",
            "cycle",
        ),
    ),
    Internals(
        "uvicorn.protocols.http.httptools_impl",
        "RequestResponseCycle",
        attributes=(
            "scope",
            "keep_alive",
            "default_headers",
            "message_event",
            "on_response",
            "body",
            "more_body",
            "disconnected",
            "waiting_for_100_continue",
            "response_started",
            "response_complete",
        ),
    ),
    Internals("uvicorn.protocols.http.httptools_impl", "STATUS_LINE"),
    Internals(
        "uvicorn.protocols.http.flow_control",
        "FlowControl",
        methods=("resume_reading",),
        attributes=("read_paused", "write_paused"),
    ),
    Internals(
        "uvicorn.server",
        "Server",
        methods=("startup", "shutdown", "handle_exit"),
        attributes=("server_state", "started", "should_exit", "force_exit"),
    ),
    Internals("uvicorn.server", "ServerState", attributes=("connections",)),
)


def check_uvicorn() -> None:
    """Raise UnsupportedUvicornError if anything of INTERNALS is missing."""
    for name in _missing():
        raise UnsupportedUvicornError(
            f"Offramp's HTTP server needs uvicorn {SUPPORTED_VERSIONS}; version {uvicorn.__version__} "
            f"has no {name}."
        )


def _missing() -> Iterator[str]:
    for entry in INTERNALS:
        module = importlib.import_module(entry.module)
        found = getattr(module, entry.name, None)
        if found is None:
            yield f"{entry.module}.{entry.name}"
            continue
        yield from (f"{entry.name}.{name}" for name in entry.methods if not hasattr(found, name))
        if entry.attributes:
            # There is no instance yet. The code of __init__ names the attributes that it sets.
            assigned = inspect.unwrap(found.__init__).__code__.co_names
            yield from (f"{entry.name}.{name}" for name in entry.attributes if name not in assigned)
