"""A cluster of one machine that runs Ray Serve, and applications on it, over real HTTP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from PIL import Image
from ray import serve
from ray.serve.schema import ServeDeploySchema

from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine, Prediction
from serving.ray.app import build
from tests.serving.conftest import encode
from tests.serving.tiny_bundle import SIZE, write_tiny_bundle

APP = "offramp"
SETTINGS = {"host": "127.0.0.1", "max_queue_ms": 60_000}


@dataclass
class Cluster:
    """Where Serve listens, and where Ray exports metrics."""

    url: str
    metrics: str

    def deploy(self, args: dict[str, Any]) -> httpx.Client:
        """Deploy, or change, the application, and wait until it runs."""
        serve.run(build({"settings": SETTINGS, **args}), name=APP, route_prefix="/")
        return httpx.Client(base_url=self.url, timeout=60)

    def deploy_file(self, content: dict[str, Any]) -> None:
        """Deploy a file of `content` as `serve deploy` does, but without its HTTP options, and directly
        instead of through the dashboard."""
        client = serve.context._get_global_client()
        plain = {key: content[key] for key in ("applications",)}
        client.deploy_apps(ServeDeploySchema.model_validate(plain), _blocking=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    ray.init(
        "local",
        num_cpus=16,
        object_store_memory=200 << 20,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 1000},
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    (node,) = ray.nodes()
    try:
        yield Cluster(
            f"http://127.0.0.1:{port}", f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        )
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("ray") / "tiny")


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (40, SIZE, SIZE, 3))
    return (noise * np.linspace(0.05, 1, 40)[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="session")
def files(images: NDArray[np.uint8]) -> list[bytes]:
    return [encode(Image.fromarray(pixels)) for pixels in images]


@pytest.fixture(scope="session")
def expected(bundle: Path, images: NDArray[np.uint8]) -> list[Prediction]:
    """The predictions of the engine without a server."""
    found = load_bundle(bundle)
    return Engine(found).classify(images, found.policy)


def check(found: dict[str, Any], wanted: Prediction) -> None:
    """Assert that an answer over HTTP equals the prediction of the engine."""
    (answer,) = found["predictions"]
    assert (answer["index"], answer["exit"]) == (wanted.index, wanted.exit)
    assert answer["confidence"] == pytest.approx(wanted.confidence, abs=1e-4)
    measured = {"name": wanted.measure, "value": pytest.approx(wanted.measured, abs=1e-4)}
    assert answer["measure"] == measured


def replicas(deployment: str) -> list[str]:
    """The names of the actors that are `deployment`'s replicas now."""
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return [name for name in names if name.startswith(f"SERVE_REPLICA::{APP}#{deployment}#")]


def wait_for(condition: Callable[[], object], within: float = 60) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


async def load(
    url: str, files: list[bytes], requests: int, at_once: int, on: Callable[[int], None]
) -> tuple[dict[int, dict[str, Any]], int]:
    """Classify `requests` images, `at_once` at a time, and retry those that failed on the server.

    Returns the answers by number, and the number of failed attempts. `on(number)` is called before each
    request.
    """
    answers: dict[int, dict[str, Any]] = {}
    failed = 0
    numbers = iter(range(requests))

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal failed
        for number in numbers:
            on(number)
            for attempt in range(8):
                try:
                    reply = await http.post(
                        "/v1/classify",
                        content=files[number % len(files)],
                        headers={"Content-Type": "image/png"},
                    )
                except httpx.TransportError:
                    reply = None
                if reply is not None and reply.status_code == 200:
                    answers[number] = reply.json()
                    break
                assert reply is None or reply.status_code in (429, 500, 503), reply.text
                failed += 1
                await asyncio.sleep(0.2 * 2**attempt)

    # Requests that a lost replica leaves unanswered time out and are retried, too.
    async with httpx.AsyncClient(base_url=url, timeout=15) as http:
        await asyncio.gather(*(client(http) for _ in range(at_once)))
    return answers, failed
