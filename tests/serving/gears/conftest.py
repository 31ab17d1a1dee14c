from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.service import Service
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.tiny_bundle import write_tiny_bundle
from tests.serving.tiny_gears import write_tiny_gears

# Answers of the tests take less, unless they say otherwise.
TARGET_MS = 5000.0


@pytest.fixture
def geared(tmp_path: Path) -> Path:
    """A bundle with three gears; the policy is full depth."""
    return write_tiny_gears(write_tiny_bundle(tmp_path / "tiny"))


@pytest.fixture
def serve() -> Callable[..., Any]:
    """`with serve(bundle, floor) as client`."""

    def serving(bundle: Path, floor: float = 0.0) -> Any:
        settings = Settings(
            bundles=(bundle,),
            workers=1,
            max_queue_ms=2 * TARGET_MS,
            target_p99_ms=TARGET_MS,
            accuracy_floor=floor,
        )
        return running(settings)

    return serving


@pytest.fixture
def client(geared: Path, serve: Callable[..., Any]) -> Iterator[Client]:
    with serve(geared) as client:
        client.app.state.service.gears.update(time.monotonic())
        yield client


@pytest.fixture
def service(client: Client) -> Service:
    state: Service = client.app.state.service
    return state
