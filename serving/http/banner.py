"""What `offramp serve` says once it listens."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence

from PIL import Image

from exports.bundle.manifest import Manifest
from serving.inference.providers import CPU, gpu_present
from serving.models.registry import LoadedModel

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def announcement(host: str, port: int, models: Sequence[LoadedModel]) -> str:
    """The address, two commands to try it with, and a hint if a GPU lies idle."""
    text = greeting(host, port, [model.engine.manifest for model in models])
    if models[0].engine.provider == CPU and gpu_present():
        text += (
            "\nThis machine has a GPU: pip uninstall onnxruntime && pip install 'offramp[gpu]', "
            "then serve with --provider cuda."
        )
    return text


def greeting(host: str, port: int, manifests: Sequence[Manifest]) -> str:
    """The address of a server of bundles with `manifests`, and two commands to try it with."""
    local = WILDCARDS.get(host, host)
    url = f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"
    spec = manifests[0].input
    body = json.dumps({"images": [sample(spec.width, spec.height)]}, separators=(",", ":"))
    names = ", ".join(manifest.name for manifest in manifests)
    return "\n".join(
        (
            f"Offramp serves {names} at {url} (documentation: {url}/docs)",
            "Try it:",
            f"  curl -s '{url}/v1/classify' -H 'Content-Type: application/json' -d '{body}'",
            f"  curl -s '{url}/v1/classify' -H 'Content-Type: image/jpeg' --data-binary @photo.jpg",
        )
    )


def sample(width: int, height: int) -> str:
    """A small PNG of that size, in pixels, as base64: an orange box on blue."""
    image = Image.new("P", (width, height), 0)
    image.putpalette([40, 90, 160, 240, 150, 30])
    image.paste(1, (width // 4, height // 3, width - width // 4, height))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True, bits=1)
    return base64.b64encode(content.getvalue()).decode("ascii")
