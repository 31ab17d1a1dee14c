"""A real server under load: canaries are rolled back or promoted, every request is answered, once and
right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine
from serving.service import Service
from tests.serving.canary.conftest import CANARY, settings_of
from tests.serving.http.load import Load, load
from tests.serving.live import live
from tests.serving.scheduling.harness import Stage

CONNECTIONS = 6
Expected = dict[str, list[tuple[int, int]]]


@pytest.fixture(scope="module")
def expected(repository: Path, images: NDArray[np.uint8]) -> Expected:
    """The class and exit of every image by version, from the engine without a server."""
    found = {}
    for version in "123":
        bundle = load_bundle(repository / f"tiny-{version}")
        predictions = Engine(bundle).classify(images, bundle.policy)
        found[version] = [(p.index, p.exit) for p in predictions]
    return found


@dataclass
class Running:
    """A server under load: its state, a client for its admin routes, and the answers by version."""

    service: Service
    http: httpx.Client
    load: Load
    versions: Counter[str] = field(default_factory=Counter)

    def start(self, bundle: str, **plan: Any) -> None:
        body = {"bundle": bundle, "share": 0.5, "mirror_share": 0.0, **plan}
        assert self.http.post(CANARY, json=body).status_code == 201

    def wait_for_end(self, within: float = 60) -> Any:
        """Wait until the canary has ended, and some answers more; returns how it ended."""
        end = time.monotonic() + within
        while (found := self.http.get(CANARY).json())["running"] is not None:
            assert time.monotonic() < end
            assert self.load.wrong == []
            time.sleep(0.02)
        self.load.wait_for(50)
        return found["ended"][0]


@pytest.fixture
def serving(repository: Path, expected: Expected, pngs: list[bytes]) -> Callable[[], Any]:
    """`with serving() as running`: a server under load. At the end no answer is wrong or missing."""

    @contextmanager
    def started() -> Iterator[Running]:
        versions: Counter[str] = Counter()

        def is_right(number: int, answer: Any) -> bool:
            (found,) = answer["predictions"]
            versions[answer["version"]] += 1
            return (found["index"], found["exit"]) == expected[answer["version"]][number]

        with live(settings_of(repository)) as (port, service):
            address = ("127.0.0.1", port)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                with load(address, pngs, is_right, CONNECTIONS) as clients:
                    running = Running(service, http, clients, versions)
                    clients.wait_for(150)
                    yield running
                assert clients.wrong == []
                assert versions.total() == clients.answered
                counted = http.get("/metrics").text
                assert (
                    f'offramp_requests_total{{model="tiny",outcome="ok"}} {clients.answered}.0'
                    in counted
                )

    return started


@pytest.mark.serial
def test_a_canary_whose_engine_fails_is_rolled_back(serving: Callable[[], Any]) -> None:
    with serving() as running:
        running.start("tiny-2", share=0.0)
        engine = running.service.canaries.running["tiny"].model.engine

        def fail(stage: int, inputs: Any) -> Any:
            raise RuntimeError("a broken canary")

        engine.run_stage = fail
        running.http.patch(CANARY, json={"share": 0.5})
        ended = running.wait_for_end()
        assert ended["outcome"] == "error_rate"
        # Batches fail as a whole.
        assert 10 <= ended["report"]["canary"]["errors"] <= 10 + CONNECTIONS
        assert running.versions["2"] == 0


@pytest.mark.serial
def test_a_canary_without_logits_is_rolled_back(serving: Callable[[], Any]) -> None:
    with serving() as running:
        running.start("tiny-4")
        assert running.wait_for_end()["outcome"] == "error_rate"


@pytest.mark.serial
def test_a_slow_canary_is_rolled_back(serving: Callable[[], Any]) -> None:
    with serving() as running:
        running.start("tiny-2", share=0.0)
        stage = Stage(running.service.canaries.running["tiny"].model.engine)
        stage.pause = 0.05
        running.load.wait_for(150)
        running.http.patch(CANARY, json={"share": 0.5})
        ended = running.wait_for_end()
        assert ended["outcome"] == "latency"
        assert ended["report"]["canary"]["errors"] == 0
        assert running.versions["2"] >= 10


@pytest.mark.serial
def test_a_canary_that_disagrees_is_rolled_back(serving: Callable[[], Any]) -> None:
    with serving() as running:
        # The two disagree on most images. A busy machine may make either slow.
        bounds = {"min_agreement": 0.9, "max_latency_ratio": 1000.0}
        running.start("tiny-2", mirror_share=1.0, bounds=bounds)
        ended = running.wait_for_end()
        assert ended["outcome"] == "agreement"
        assert ended["report"]["disagreements"]["interval"][0] > 0.1


@pytest.mark.serial
def test_an_equal_canary_is_promoted_share_by_share(serving: Callable[[], Any]) -> None:
    with serving() as running:
        bounds = {"min_agreement": 0.99, "max_latency_ratio": 1000.0}
        running.start("tiny-3", share=0.1, mirror_share=0.5, bounds=bounds)
        for share in (0.3, 0.6, 1.0):
            running.load.wait_for(100)
            assert running.http.patch(CANARY, json={"share": share}).status_code == 200
        running.load.wait_for(50)
        found = running.http.post(f"{CANARY}/promote").json()
        assert found["ended"][0]["outcome"] == "promoted"
        before = running.versions["1"]
        running.load.wait_for(100)
        # Those that had started keep their version.
        assert running.versions["1"] - before <= CONNECTIONS
        assert running.http.get("/v1/models/tiny").json()["version"] == "3"


@pytest.mark.serial
def test_a_roll_back_by_hand_answers_what_the_canary_has_begun(serving: Callable[[], Any]) -> None:
    with serving() as running:
        for _ in range(3):
            running.start("tiny-2", share=1.0, bounds={"max_latency_ratio": 1000.0})
            running.load.wait_for(50)
            running.http.delete(CANARY)
            running.load.wait_for(50)
        assert running.versions["2"] >= 100
