"""Bundles in a repository directory, and the models that a client sees."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.serving.conftest import Client
from tests.serving.tiny_bundle import write_tiny_bundle


def names(client: Client) -> list[str]:
    """The names of the served models, in order."""
    return [model["name"] for model in client.get("/v1/models").json()["models"]]


def version(client: Client, name: str) -> str:
    return client.get(f"/v1/models/{name}").json()["version"]


def replace_bundle(path: Path, **options: Any) -> None:
    """Replace the bundle in `path` by renaming, as an operator would; `options` are those of
    write_tiny_bundle."""
    new = write_tiny_bundle(path.parent / ".new", name=path.name, **options)
    if path.exists():
        path.rename(path.parent / ".old")
    new.rename(path)
    shutil.rmtree(path.parent / ".old", ignore_errors=True)


def damage(path: Path) -> None:
    """Change a byte of a stage of the bundle in `path`."""
    content = bytearray((path / "stage2.onnx").read_bytes())
    content[100] ^= 1
    (path / "stage2.onnx").write_bytes(content)


def wait_until(client: Client, condition: Callable[[], bool], within: float = 20) -> None:
    """Let the server run until `condition` holds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, names(client)
        client.runner.run(asyncio.sleep(0.05))
