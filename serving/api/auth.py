"""The key that admin routes require."""

from __future__ import annotations

import ipaddress
import re
import secrets
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from serving.errors import SettingsError, UnauthorizedError
from serving.settings import Settings

MIN_KEY_CHARS = 16
USABLE = re.compile(r"[\x21-\x7e]*")
API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False)
BEARER = HTTPBearer(auto_error=False)
# A proxy adds one of these: the client is then elsewhere. Not all proxies do.
PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})
PROXY_PREFIX = "x-forwarded-"


class AdminKey:
    """The key of a server, or the rule for a server without one."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError, without the key in it, if the key is unreadable or not valid."""
        self._settings = settings
        self._key = _read(settings)
        self._local = is_loopback(settings.host)
        self._proxied = bool(settings.root_path or settings.forwarded_allow_ips)

    def reload(self) -> None:
        """Read the key's file again. Raises SettingsError, and then the old key stays."""
        self._key = _read(self._settings)

    def check(self, request: Request, key: str | None) -> None:
        """Raise UnauthorizedError unless `key` is the server's.

        Without one, a server that listens on loopback, and by its settings behind no proxy, accepts requests
        of loopback whose Host is a loopback address and that have no header of a proxy. Their Origin, if any,
        must be loopback too: a browser on this machine also sends requests of other sites' pages.
        """
        if self._key is not None:
            # compare_digest takes text only if it is ASCII.
            if key is None or not secrets.compare_digest(key.encode(), self._key):
                raise UnauthorizedError(
                    "This needs the server's key, as Authorization: Bearer KEY or X-API-Key: KEY."
                )
        elif not self._local:
            raise UnauthorizedError(
                "This is closed: a server that listens beyond loopback needs a key, in "
                "OFFRAMP_API_KEY or OFFRAMP_API_KEY_FILE."
            )
        elif self._proxied:
            raise UnauthorizedError(
                "This is closed: a server behind a proxy needs a key, in OFFRAMP_API_KEY or "
                "OFFRAMP_API_KEY_FILE."
            )
        elif not _local_request(request):
            raise UnauthorizedError(
                "Without a key the server takes this from its own machine alone, under an address of "
                "loopback, through no proxy and from no other site's page."
            )


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is reachable only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _local_request(request: Request) -> bool:
    if any(name in PROXY_HEADERS or name.startswith(PROXY_PREFIX) for name in request.headers):
        return False
    try:
        hosts = [request.client and request.client.host]
        hosts.append(urlsplit(f"//{request.headers.get('host', '')}").hostname)
        if "origin" in request.headers:
            hosts.append(urlsplit(request.headers["origin"]).hostname)
    except ValueError:
        return False
    return all(is_loopback(host or "") for host in hosts)


def _read(settings: Settings) -> bytes | None:
    if settings.api_key is not None and settings.api_key_file is not None:
        raise SettingsError("Set either api_key or api_key_file, not both.")
    if settings.api_key_file is not None:
        try:
            key = settings.api_key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"The API key's file {settings.api_key_file} cannot be read."
            ) from error
    elif settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    else:
        return None
    if len(key) < MIN_KEY_CHARS or not USABLE.fullmatch(key):
        raise SettingsError(
            f"The API key must have at least {MIN_KEY_CHARS} characters, ASCII without spaces."
        )
    return key.encode()


def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    header: Annotated[str | None, Depends(API_KEY)],
) -> None:
    """Raise UnauthorizedError unless the request may change the server."""
    admin_key: AdminKey = request.app.state.admin_key
    admin_key.check(request, bearer.credentials if bearer is not None else header)


AdminOnly = Depends(require_key)
