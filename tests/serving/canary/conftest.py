from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from serving.service import Service
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.requests import CLASSIFY
from tests.serving.tiny_bundle import stage_bytes, write_tiny_bundle

CANARY = "/v1/models/tiny/canary"


def nan_stage(stage: int) -> bytes:
    """The graph of a stage whose head gives NaN."""
    graph = onnx.load_from_string(stage_bytes(stage, seed=2))
    for weights in graph.graph.initializer:
        if weights.name == "head":
            values = np.full_like(numpy_helper.to_array(weights), np.nan)
            weights.CopyFrom(numpy_helper.from_array(values, "head"))
    content: bytes = graph.SerializeToString()
    return content


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the versions 1, 2 (other weights), 3 (the weights of 1) and 4 (gives NaN) of `tiny`;
    1 is served."""
    path = tmp_path_factory.mktemp("canaries") / "repository"
    write_tiny_bundle(path / "tiny-1")
    write_tiny_bundle(path / "tiny-2", version="2", seed=2)
    write_tiny_bundle(path / "tiny-3", version="3")
    write_tiny_bundle(path / "tiny-4", version="4", stages={1: nan_stage(1)})
    return path


def settings_of(repository: Path, **options: Any) -> Settings:
    """Settings of a server with the repository. The queue is long, since a busy machine may be slow."""
    return Settings(repository=repository, workers=2, max_queue_ms=60_000, **options)


@pytest.fixture
def client(repository: Path) -> Iterator[Client]:
    with running(settings_of(repository)) as client:
        yield client


@pytest.fixture
def service(client: Client) -> Service:
    state: Service = client.app.state.service
    return state


def start(client: Client, bundle: str = "tiny-2", **plan: Any) -> Any:
    """Start a canary; returns its report."""
    answer = client.post(CANARY, json={"bundle": bundle, "mirror_share": 0.0, **plan})
    assert answer.status_code == 201, answer.text
    return answer.json()["running"]


def answer_of(client: Client, png: bytes, url: str = CLASSIFY, **headers: str) -> Any:
    """The answer to a request to classify `png`."""
    content_type = {"Content-Type": "image/png"}
    answer = client.post(url, content=png, headers={**content_type, **headers})
    assert answer.status_code == 200, answer.text
    return answer.json()
