"""The default recipe of the profile train, and a server that watches the directory of its bundle."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serving.api.examples import sample_image
from tests.deploy.hosts import ROOT, free_port, process, wait_for

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
TRAINER = COMPOSE["services"]["trainer"]
# The script's default arguments in compose.
RECIPE, TEACHER = (word.split(":-")[1].rstrip("}") for word in TRAINER["command"])


@contextlib.contextmanager
def watching(bundles: Path, log: Path) -> Iterator[str]:
    """The address of a server as compose starts it, with `bundles` as the volume."""
    port = free_port()
    settings = {
        **COMPOSE["x-serving"]["environment"],
        "OFFRAMP_REPOSITORY": str(bundles),
        "OFFRAMP_PORT": str(port),
        "OFFRAMP_WORKERS": "1",
    }
    command = [sys.executable, "-m", "offramp.cli", *COMPOSE["x-serving"]["command"]]
    with process(command, log, **settings):
        wait_for(f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}"


def classify(url: str) -> dict[str, Any]:
    """An answer of the trained model, once it is served."""
    wait_for(f"{url}/v1/models/{RECIPE}", seconds=30)
    request = urllib.request.Request(
        f"{url}/v1/classify?model={RECIPE}",
        base64.b64decode(sample_image(16, 16)),
        {"Content-Type": "image/png"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def models(url: str) -> list[str]:
    """The names of the served models."""
    return [model["name"] for model in json.loads(wait_for(f"{url}/v1/models"))["models"]]
