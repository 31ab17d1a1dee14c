"""What `offramp serve` prints once it listens."""

from __future__ import annotations

import json
from collections.abc import Sequence

# Addresses that mean all interfaces, and one of this machine's own to connect to instead.
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
GPU_HINT = (
    "This machine has a GPU: pip uninstall onnxruntime && pip install 'offramp[gpu]', "
    "then serve with --provider cuda."
)


def banner(
    host: str, port: int, models: Sequence[str], example: str, *, idle_gpu: bool = False
) -> str:
    """The address, two commands to try it with, and a hint if a GPU is idle.

    `models` are names, at least one; `example` is an image file as base64.
    """
    url = local_url(host, port)
    body = json.dumps({"images": [example]}, separators=(",", ":"))
    lines = [
        f"Offramp serves {', '.join(models)} at {url} (documentation: {url}/docs)",
        "Try it:",
        f"  curl -s '{url}/v1/classify' -H 'Content-Type: application/json' -d '{body}'",
        f"  curl -s '{url}/v1/classify' -H 'Content-Type: image/jpeg' --data-binary @photo.jpg",
    ]
    if idle_gpu:
        lines.append(GPU_HINT)
    return "\n".join(lines)


def empty_banner(host: str, port: int, repository: str, *, watched: bool) -> str:
    """The address of a server without a model, and how to load one from the directory `repository`."""
    url = local_url(host, port)
    lines = [f"Offramp serves no model yet at {url}: /readyz answers 503 until one is loaded."]
    if watched:
        lines += [f"A bundle that appears in {repository} is loaded.", f"  curl -s {url}/readyz"]
    else:
        lines += [f"Put a bundle into {repository}, then:", f"  curl -X PUT {url}/v1/models/NAME"]
    return "\n".join(lines)


def local_url(host: str, port: int) -> str:
    """The address of a server on `host`, as this machine can reach it."""
    local = WILDCARDS.get(host, host)
    return f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"
