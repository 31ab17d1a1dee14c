from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from exports.bundle import Bundle
from serving.engine import Engine, Prediction
from tests.servers import Server, started
from tests.serving.server_command import command


@pytest.fixture(scope="package")
def server(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real server, in a process of its own, with the tiny bundle."""
    with started(command(bundle_path), tmp_path_factory.mktemp("cwd")) as server:
        yield server


@pytest.fixture(scope="package")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield http


@pytest.fixture(scope="package")
def expected(engine: Engine, bundle: Bundle, images: NDArray[np.uint8]) -> list[Prediction]:
    """What the engine says of each picture, without a server."""
    return engine.classify(images, bundle.policy)
