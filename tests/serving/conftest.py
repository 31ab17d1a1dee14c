from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image

from exports.bundle.reader import Bundle, load_bundle
from serving.api.app import create_app
from serving.inference.engine import Engine, Prediction
from serving.settings import Settings
from tests.servers import Server, started
from tests.serving.server_command import command
from tests.serving.tiny_bundle import SIZE, write_tiny_bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="session")
def bundle_with_image_stages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A bundle whose stages of the parameter take the image."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    return load_bundle(write_tiny_bundle(path, image_stages=request.param))


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle)


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Images from dark to bright: the network is confident of some of them."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (40, SIZE, SIZE, 3))
    return (noise * np.linspace(0.05, 1, 40)[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="session")
def pngs(images: NDArray[np.uint8]) -> list[bytes]:
    return [encode(Image.fromarray(pixels)) for pixels in images]


@pytest.fixture
def settings(bundle_path: Path) -> Settings:
    return Settings(bundles=(bundle_path,), workers=2, max_images=8, max_body_bytes=20_000)


@pytest.fixture(scope="session")
def expected(engine: Engine, bundle: Bundle, images: NDArray[np.uint8]) -> list[Prediction]:
    """The engine's prediction for each image, without a server."""
    return engine.classify(images, bundle.policy)


@pytest.fixture(scope="session")
def server(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real server, in a process of its own, with the tiny bundle."""
    with started(command(bundle_path), tmp_path_factory.mktemp("cwd")) as server:
        yield server


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield http


class Client:
    """Talks to an app in process, on an event loop of its own."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.runner = asyncio.Runner()
        # An unexpected fault must be answered, not raised in the test.
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.runner.run(self.http.get(url, **options))

    def put(self, url: str, **options: Any) -> httpx.Response:
        return self.runner.run(self.http.put(url, **options))

    def delete(self, url: str, **options: Any) -> httpx.Response:
        return self.runner.run(self.http.delete(url, **options))

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.runner.run(self.http.post(url, **options))


@contextmanager
def running(settings: Settings) -> Iterator[Client]:
    """A client of a started app, which is stopped at the end."""
    with lifespan_of(create_app(settings)) as client:
        yield client


@contextmanager
def lifespan_of(app: FastAPI) -> Iterator[Client]:
    """A client of `app`, which is started before and stopped at the end."""
    client = Client(app)
    with client.runner:
        lifespan = app.router.lifespan_context(app)
        client.runner.run(lifespan.__aenter__())
        yield client
        client.runner.run(lifespan.__aexit__(None, None, None))


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with running(settings) as client:
        yield client


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()
