"""The form stages, on a real cluster over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.networks import random_bundle
from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine, Prediction
from serving.ray.features import MAX_INLINE_BYTES
from tests.ray.conftest import Cluster, check, load, replicas, wait_for
from tests.serving.conftest import encode
from tests.serving.tiny_bundle import EXITS, write_tiny_bundle

pytestmark = pytest.mark.deploy
ONE = {"min_replicas": 1, "max_replicas": 1}
TWO = {"min_replicas": 2, "max_replicas": 2}
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def http(cluster: Cluster, bundle: Path) -> Iterator[httpx.Client]:
    args = {"form": "stages", "bundles": [str(bundle)], "replicas": ONE, "stages": [TWO]}
    with cluster.deploy(args) as client:
        yield client


def test_every_stage_has_its_own_deployment(http: httpx.Client) -> None:
    assert [len(replicas(f"stage{k}")) for k in range(1, EXITS + 1)] == [2] * EXITS
    assert http.get("/v1/models/tiny").json()["provider"] == "CPUExecutionProvider"


def test_answers_equal_those_of_the_engine(
    http: httpx.Client, files: list[bytes], expected: list[Prediction]
) -> None:
    assert len({wanted.exit for wanted in expected}) == EXITS
    for file, wanted in zip(files, expected, strict=True):
        check(http.post("/v1/classify", content=file, headers=PNG).json(), wanted)


def test_concurrent_requests_get_their_own_answers(
    cluster: Cluster, http: httpx.Client, files: list[bytes], expected: list[Prediction]
) -> None:
    answers, failed = asyncio.run(load(cluster.url, files, 400, 32, lambda _: None))
    assert failed == 0
    for number, answer in answers.items():
        check(answer, expected[number % len(files)])


def test_a_request_can_choose_its_depth(http: httpx.Client, files: list[bytes]) -> None:
    for depth in range(1, EXITS + 1):
        url = f"/v1/classify?mode=exit&max_exit={depth}"
        (found,) = http.post(url, content=files[0], headers=PNG).json()["predictions"]
        assert found["exit"] == depth


def test_a_policy_is_decided_by_the_ingress(http: httpx.Client, files: list[bytes]) -> None:
    policy = Policy(thresholds=(0.0, 0.0), max_exit=EXITS).model_dump(mode="json")
    before = http.get("/v1/models/tiny/policy").json()["policy"]
    assert http.put("/v1/models/tiny/policy", json=policy).status_code == 200
    (found,) = http.post("/v1/classify", content=files[-1], headers=PNG).json()["predictions"]
    assert found["exit"] == 1
    assert http.put("/v1/models/tiny/policy", json=before).status_code == 200


@pytest.mark.parametrize("stage", [1, EXITS])
def test_no_request_fails_when_a_stage_is_killed(
    cluster: Cluster, http: httpx.Client, files: list[bytes], expected: list[Prediction], stage: int
) -> None:
    def kill(number: int) -> None:
        if number == 100:
            ray.kill(ray.get_actor(replicas(f"stage{stage}")[0], namespace="serve"))

    wait_for(lambda: len(replicas(f"stage{stage}")) == 2)
    answers, failed = asyncio.run(load(cluster.url, files, 400, 8, kill))
    assert (len(answers), failed) == (400, 0)
    for number, answer in answers.items():
        check(answer, expected[number % len(files)])


def test_a_stream_reports_every_exit_once(http: httpx.Client, files: list[bytes]) -> None:
    reply = http.post("/v1/classify/stream?mode=ensemble", content=files[0], headers=PNG)
    assert reply.text.count("event: exit\n") == EXITS


def test_a_changed_bundle_rolls_out_without_a_lost_request(
    cluster: Cluster, http: httpx.Client, files: list[bytes], tmp_path: Path
) -> None:
    renewed = write_tiny_bundle(tmp_path / "renewed")
    manifest = (renewed / "manifest.json").read_text()
    (renewed / "manifest.json").write_text(manifest.replace('"version":"1"', '"version":"2"'))
    args = {"form": "stages", "bundles": [str(renewed)], "replicas": ONE, "stages": [TWO]}

    async def roll() -> tuple[dict[int, dict[str, Any]], int]:
        deploying = asyncio.create_task(asyncio.to_thread(cluster.deploy, args))
        found = await load(cluster.url, files, 400, 4, lambda _: None)
        await deploying
        return found

    answers, failed = asyncio.run(roll())
    assert (len(answers), failed) == (400, 0)
    wait_for(lambda: http.get("/v1/models/tiny").json()["version"] == "2")


def test_answers_are_the_same_with_features_in_shared_memory(
    cluster: Cluster, tmp_path: Path
) -> None:
    bundle = load_bundle(random_bundle(tmp_path / "large").path)
    shape = bundle.manifest.exits[0].feature_shape
    assert shape is not None
    assert 4 * np.prod(shape) > MAX_INLINE_BYTES
    engine = Engine(bundle)
    policy = bundle.policy.override(mode="ensemble")
    spec = bundle.manifest.input
    images: NDArray[np.uint8] = np.random.default_rng(3).integers(
        0, 256, (8, spec.height, spec.width, 3), dtype=np.uint8
    )
    wanted = engine.classify(images, policy)
    args = {"form": "stages", "bundles": [str(bundle.path)], "replicas": ONE, "stages": [ONE]}
    with cluster.deploy(args) as http:
        files = [encode(Image.fromarray(pixels)) for pixels in images]
        reply = http.post(
            "/v1/classify?mode=ensemble",
            files=[("files", (f"{n}.png", file, "image/png")) for n, file in enumerate(files)],
        )
        for found, one in zip(reply.json()["predictions"], wanted, strict=True):
            check({"predictions": [found]}, one)


def test_answers_are_the_same_with_features_of_eight_bits(
    cluster: Cluster, files: list[bytes], images: NDArray[np.uint8], tmp_path: Path
) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "int8", kind="uint8"))
    wanted = Engine(bundle).classify(images, bundle.policy)
    assert len({one.exit for one in wanted}) > 1
    args = {"form": "stages", "bundles": [str(bundle.path)], "replicas": ONE, "stages": [ONE]}
    with cluster.deploy(args) as http:
        for file, one in zip(files, wanted, strict=True):
            check(http.post("/v1/classify", content=file, headers=PNG).json(), one)


def test_a_stage_that_takes_the_image_answers_as_the_engine(
    cluster: Cluster, files: list[bytes], images: NDArray[np.uint8], tmp_path: Path
) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "cascade", image_stages=(1, EXITS)))
    expected = Engine(bundle).classify(images, bundle.policy)
    assert len({wanted.exit for wanted in expected}) == EXITS
    args = {"form": "stages", "bundles": [str(bundle.path)], "replicas": ONE, "stages": [ONE]}
    with cluster.deploy(args) as http:
        for file, wanted in zip(files, expected, strict=True):
            check(http.post("/v1/classify", content=file, headers=PNG).json(), wanted)
