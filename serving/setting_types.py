"""Types of settings that are several words: how they are read and checked."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

# RFC 6454, section 6.2: scheme, host and perhaps a port.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def _split_paths(value: object) -> object:
    if isinstance(value, str):
        parts = value.split() if "://" in value else value.split(os.pathsep)
        return tuple(part for part in parts if part)
    if isinstance(value, tuple):
        return tuple(os.fspath(part) for part in value)
    return value


def _split_words(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is not an origin such as https://example.org")
    return value


def _check_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    for address in value:
        if address != "*":
            ipaddress.ip_network(address)
    return value


def _check_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not a host such as example.org or example.org:8443")
    return tuple(host.lower() for host in value)


Bundles = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_paths)]
Origins = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_words), AfterValidator(_check_origins)
]
Addresses = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_words), AfterValidator(_check_addresses)
]
Hosts = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_words), AfterValidator(_check_hosts)
]
