"""The policy in force on a running server: reading it, and replacing it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.writing import policy_json
from offramp.client.requests import MODELS, connection_error, connection_options, raise_for_error

KEY = "OFFRAMP_API_KEY"
KEY_FILE = "OFFRAMP_API_KEY_FILE"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class PolicyInForce:
    """The policy of a server at `url`, and the ETag of its revision."""

    url: str
    policy: Policy
    etag: str


def read_in_force(url: str, manifest: Manifest) -> PolicyInForce:
    """The policy in force for the bundle of `manifest` on the server at `url`.

    Raises ClientError if the server gives none, TuningError if its model of this name is another network.
    """
    path = _path(manifest)
    content = _request(url, "GET", path).json()
    served = (
        content["version"],
        content["precision"],
        tuple(content["labels"]),
        [entry["macs"] for entry in content["exits"]],
    )
    exits = [entry.macs for entry in manifest.exits]
    if served != (manifest.version, manifest.precision, manifest.labels, exits):
        raise TuningError(
            f"{url} serves another {manifest.name} (version {content['version']}, {content['precision']}) "
            f"than this bundle (version {manifest.version}, {manifest.precision})."
        )
    response = _request(url, "GET", f"{path}/policy")
    try:
        policy = Policy.model_validate(response.json()["policy"])
    except ValidationError as error:
        raise TuningError(
            f"{url} has a policy that this version of Offramp cannot read."
        ) from error
    return PolicyInForce(url, policy, response.headers["ETag"])


def replace_in_force(current: PolicyInForce, manifest: Manifest, policy: Policy) -> None:
    """Put `policy` in force in the place of `current`. Raises ClientError, with the server's sentence, if it
    is refused or if another policy is in force by now."""
    headers = {"If-Match": current.etag, "Content-Type": "application/json"}
    path = f"{_path(manifest)}/policy"
    _request(current.url, "PUT", path, content=policy_json(policy), headers=headers)


def _path(manifest: Manifest) -> str:
    return f"{MODELS}/{quote(manifest.name, safe='')}"


def _request(url: str, method: str, path: str, **content: Any) -> httpx.Response:
    try:
        with httpx.Client(**connection_options(url, _key(os.environ), TIMEOUT_S)) as http:
            response = http.request(method, path, **content)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise TuningError(f"{url} is not the address of a server.") from error
    except httpx.TransportError as error:
        raise connection_error(error, httpx.URL(url)) from error
    raise_for_error(response)
    return response


def _key(environment: Mapping[str, str]) -> str | None:
    """The server's key, from the variables that `offramp serve` reads."""
    if environment.get(KEY):
        return environment[KEY]
    file = environment.get(KEY_FILE)
    if not file:
        return None
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"The key in {file}, which {KEY_FILE} names, cannot be read.") from error
