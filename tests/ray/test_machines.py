"""A cluster of two machines: both serve, and one continues when the other is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.networks import random_bundle
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine, Prediction
from serving.ray.features import MAX_INLINE_BYTES
from serving.ray.remote import STAGE_TIMEOUT_S
from tests.ray.conftest import SETTINGS, check, load, wait_for
from tests.ray.machines import CORES, Machine, cluster, deploy
from tests.serving.conftest import encode
from tests.serving.tiny_bundle import EXITS

pytestmark = pytest.mark.deploy
ONE = {"min_replicas": 1, "max_replicas": 1}
TWO = {"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1}
PNG = {"Content-Type": "image/png"}
# Time that a request may take besides the stage timeout.
SLACK_S = 10


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    with cluster() as found:
        yield found


def test_replicas_answer_on_both_machines_and_then_on_one(
    machines: tuple[Machine, Machine],
    bundle: Path,
    files: list[bytes],
    expected: list[Prediction],
    tmp_path: Path,
) -> None:
    head, other = machines
    args = {"settings": SETTINGS, "bundles": [str(bundle)], "replicas": TWO}
    deploy(machines, "serve.yaml", tmp_path, args)
    wait_for(lambda: other.replicas() == ["offramp"])
    for machine in machines:
        reply = httpx.post(f"{machine.url}/v1/classify", content=files[0], headers=PNG)
        check(reply.json(), expected[0])

    def kill(number: int) -> None:
        if number == 100:
            other.kill()

    answers, failed = asyncio.run(load(head.url, files, 400, 8, kill))
    assert len(answers) == 400
    assert failed <= 32
    for number, answer in answers.items():
        check(answer, expected[number % len(files)])
    assert head.replicas() == ["offramp"]


def test_stages_of_one_request_run_on_both_machines(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    _, other = machines
    bundle = load_bundle(random_bundle(tmp_path / "large").path)
    shape = bundle.manifest.exits[0].feature_shape
    assert shape is not None
    # Large enough to stay in the memory of the machine that made them until another one fetches them.
    assert 4 * np.prod(shape) > MAX_INLINE_BYTES
    spec = bundle.manifest.input
    images: NDArray[np.uint8] = np.random.default_rng(3).integers(
        0, 256, (8, spec.height, spec.width, 3), dtype=np.uint8
    )
    wanted = Engine(bundle).classify(images, bundle.policy.override(mode="ensemble"))
    # With the ingress on one machine, that machine has cores for only some of the stages.
    stages = [{**ONE, "num_cpus": 6}] * 4
    args = {
        "settings": SETTINGS,
        "bundles": [str(bundle.path)],
        "replicas": {**ONE, "num_cpus": 4},
        "stages": stages,
    }
    deploy(machines, "stages.yaml", tmp_path, args)
    count = len(bundle.stages)
    assert 0 < sum(name.startswith("stage") for name in other.replicas()) < count
    for machine in machines:
        reply = httpx.post(
            f"{machine.url}/v1/classify?mode=ensemble",
            files=[
                ("files", (f"{n}.png", encode(Image.fromarray(pixels)), "image/png"))
                for n, pixels in enumerate(images)
            ],
            timeout=60,
        )
        for found, one in zip(reply.json()["predictions"], wanted, strict=True):
            check({"predictions": [found]}, one)


@pytest.mark.parametrize("how", [Machine.kill, Machine.vanish], ids=["killed", "vanished"])
def test_stages_continue_when_a_machine_is_lost(
    machines: tuple[Machine, Machine],
    bundle: Path,
    files: list[bytes],
    tmp_path: Path,
    how: Callable[[Machine], None],
) -> None:
    head, other = machines
    args: dict[str, Any] = {"settings": SETTINGS, "bundles": [str(bundle)]}
    ingress = {**ONE, "num_cpus": CORES[1] + 1}
    deploy(machines, "stages.yaml", tmp_path, {**args, "replicas": ingress, "stages": [TWO]})
    stages = [f"stage{k}" for k in range(1, EXITS + 1)]
    wait_for(lambda: other.replicas() == stages)
    statuses, longest = asyncio.run(request_during(head, files, lambda: how(other)))
    assert set(statuses) <= {200, 503}
    assert statuses[200] > 100
    # Every request ends, and at most the calls in progress fail.
    assert longest < STAGE_TIMEOUT_S + SLACK_S
    assert statuses[503] <= 16
    assert head.replicas() == ["offramp", *stages]
    assert httpx.post(f"{head.url}/v1/classify", content=files[0], headers=PNG).status_code == 200


async def request_during(
    machine: Machine, files: list[bytes], change: Callable[[], None]
) -> tuple[Counter[int], float]:
    """The statuses of requests, eight at a time, and the seconds of the slowest, from before `change` until
    well after the last request that it may have affected."""
    statuses: Counter[int] = Counter()
    longest = 0.0
    end = time.monotonic() + STAGE_TIMEOUT_S + 2 * SLACK_S

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal longest
        while time.monotonic() < end:
            begin = time.monotonic()
            reply = await http.post("/v1/classify", content=files[statuses.total() % len(files)])
            statuses[reply.status_code] += 1
            longest = max(longest, time.monotonic() - begin)

    async with httpx.AsyncClient(base_url=machine.url, headers=PNG, timeout=90) as http:
        clients = [asyncio.create_task(client(http)) for _ in range(8)]
        await asyncio.sleep(3)
        await asyncio.to_thread(change)
        await asyncio.gather(*clients)
    return statuses, longest
