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

    `models` are names, `example` is an image file as base64.
    """
    local = WILDCARDS.get(host, host)
    url = f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"
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
