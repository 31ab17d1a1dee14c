"""The form replicas, on a real cluster over real HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import ray
import yaml

from exports.bundle.policy import Policy
from serving.inference.engine import Prediction
from tests.ray.conftest import APP, SETTINGS, Cluster, check, load, replicas, wait_for
from tests.serving.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.deploy
COUNT = 2
SCALE = {"min_replicas": COUNT, "max_replicas": COUNT}
PNG = {"Content-Type": "image/png"}
PROBES = 30


@pytest.fixture(scope="module")
def http(cluster: Cluster, bundle: Path) -> Iterator[httpx.Client]:
    with cluster.deploy({"bundles": [str(bundle)], "replicas": SCALE}) as client:
        yield client


def revisions(http: httpx.Client, count: int = PROBES) -> Counter[int]:
    """The revisions in the answers to `count` requests, each to any replica."""
    return Counter(
        http.get("/v1/models/tiny/policy", headers={"Connection": "close"}).json()["revision"]
        for _ in range(count)
    )


def test_answers_equal_those_of_the_engine(
    http: httpx.Client, files: list[bytes], expected: list[Prediction]
) -> None:
    for file, wanted in zip(files, expected, strict=True):
        reply = http.post("/v1/classify", content=file, headers=PNG)
        assert reply.status_code == 200
        assert len(reply.headers.get_list("x-request-id")) == 1
        check(reply.json(), wanted)


def test_probes_and_streams_work(http: httpx.Client, files: list[bytes]) -> None:
    assert http.get("/readyz").text == "ok\n"
    assert http.get("/-/healthz").text == "success"
    text = http.post("/v1/classify/stream", content=files[-1], headers=PNG).text
    assert text.count("event: exit") >= 1
    assert text.endswith("event: done\ndata: {}\n\n")


def test_a_policy_put_to_one_replica_reaches_every_replica(http: httpx.Client) -> None:
    before = http.get("/v1/models/tiny/policy")
    policy = {**before.json()["policy"], "thresholds": [0.9, 0.9]}
    put = http.put(
        "/v1/models/tiny/policy", json=policy, headers={"If-Match": before.headers["ETag"]}
    )
    assert put.status_code == 200
    revision = put.json()["revision"]
    assert revision == before.json()["revision"] + 1
    wait_for(lambda: set(revisions(http)) == {revision}, within=10)
    stale = {"If-Match": before.headers["ETag"]}
    conflicts = {
        http.put("/v1/models/tiny/policy", json=policy, headers=stale).status_code
        for _ in range(PROBES)
    }
    assert conflicts == {412}
    assert set(revisions(http)) == {revision}


def test_of_concurrent_changes_to_one_revision_exactly_one_succeeds(
    cluster: Cluster, http: httpx.Client
) -> None:
    etag = http.get("/v1/models/tiny/policy").headers["ETag"]
    policy = Policy(thresholds=(0.3, 0.3), max_exit=3).model_dump(mode="json")

    async def race() -> list[int]:
        async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as client:
            puts = [
                client.put("/v1/models/tiny/policy", json=policy, headers={"If-Match": etag})
                for _ in range(12)
            ]
            return [reply.status_code for reply in await asyncio.gather(*puts)]

    found = Counter(asyncio.run(race()))
    assert found == {200: 1, 412: 11}


def test_a_replica_that_starts_later_has_the_policy_in_force(http: httpx.Client) -> None:
    revision = http.get("/v1/models/tiny/policy").json()["revision"]
    assert revision > 1
    victim = replicas("offramp")[0]
    ray.kill(ray.get_actor(victim, namespace="serve"))
    wait_for(lambda: victim not in replicas("offramp") and len(replicas("offramp")) == COUNT)
    wait_for(lambda: set(revisions(http)) == {revision})


def test_policies_survive_the_loss_of_the_policy_store(http: httpx.Client) -> None:
    before = http.get("/v1/models/tiny/policy").json()
    (victim,) = replicas("policies")
    ray.kill(ray.get_actor(victim, namespace="serve"))
    wait_for(lambda: replicas("policies") not in ([], [victim]))
    policy = {**before["policy"], "thresholds": [0.4, 0.4]}

    def put() -> bool:
        return http.put("/v1/models/tiny/policy", json=policy).status_code == 200

    wait_for(put, within=30)
    after = http.get("/v1/models/tiny/policy").json()["revision"]
    assert after > before["revision"]
    wait_for(lambda: set(revisions(http)) == {after}, within=30)


def test_a_change_fails_if_the_policy_store_does_not_answer(
    http: httpx.Client,
) -> None:
    before = http.get("/v1/models/tiny/policy").json()
    policy_store = ray.get_actor(replicas("policies")[0], namespace="serve")
    process: int = ray.get(policy_store.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGSTOP)
    try:
        refused = http.put("/v1/models/tiny/policy", json=before["policy"])
    finally:
        os.kill(process, signal.SIGCONT)
    assert (refused.status_code, refused.json()["code"]) == (503, "policy_store_unavailable")
    assert refused.headers["Retry-After"]

    wait_for(lambda: http.put("/v1/models/tiny/policy", json=before["policy"]).is_success)
    # All replicas agree, whether or not the failed change was made.
    wait_for(lambda: len(found := set(revisions(http))) == 1 and min(found) > before["revision"])


def test_a_single_replica_loads_and_unloads_no_model(http: httpx.Client) -> None:
    assert http.put("/v1/models/tiny").json()["code"] == "managed_by_config"
    assert http.delete("/v1/models/tiny").status_code == 409


def test_requests_of_a_killed_replica_succeed_when_retried(
    cluster: Cluster, http: httpx.Client, files: list[bytes]
) -> None:
    policy = Policy(thresholds=(0.6, 0.5), max_exit=3).model_dump(mode="json")
    assert http.put("/v1/models/tiny/policy", json=policy).status_code == 200

    def kill(number: int) -> None:
        if number == 100:
            ray.kill(ray.get_actor(replicas("offramp")[0], namespace="serve"))

    answers, failed = asyncio.run(load(cluster.url, files, 400, 8, kill))
    assert len(answers) == 400
    # At most the requests in progress, and their retries that reached the dead replica.
    assert failed <= 32


def test_metrics_are_exported_by_ray(
    cluster: Cluster, http: httpx.Client, files: list[bytes]
) -> None:
    # Enough requests for every replica to get some.
    for file in files:
        http.post("/v1/classify", content=file, headers=PNG)
    own = set(re.findall(r"^(offramp_\w+)\{", http.get("/metrics").text, re.MULTILINE))

    def exported() -> set[str]:
        text = httpx.get(cluster.metrics).text
        return set(re.findall(r"^ray_(offramp_\w+)\{", text, re.MULTILINE))

    wanted = {name for name in own if not name.endswith("_created")}
    assert {"offramp_requests_total", "offramp_stage_duration_seconds_bucket"} <= wanted
    wait_for(lambda: wanted <= exported())
    lines = [
        line
        for line in httpx.get(cluster.metrics).text.splitlines()
        if line.startswith("ray_offramp_stage_duration_seconds_bucket{")
    ]
    assert all('deployment="offramp"' in line and 'le="' in line for line in lines)


def renewed(path: Path, threshold: float) -> Path:
    """The same network as another version with another policy."""
    policy = Policy(thresholds=(threshold, threshold), max_exit=3)
    write_tiny_bundle(path, policy=policy)
    manifest = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(manifest.replace('"version":"1"', '"version":"2"'))
    return path


async def under_load(
    cluster: Cluster, files: list[bytes], change: Callable[[], object]
) -> tuple[int, int]:
    """The number of answers to 400 requests, and of failed attempts, while `change` runs."""
    changing = asyncio.create_task(asyncio.to_thread(change))
    answers, failed = await load(cluster.url, files, 400, 4, lambda _: None)
    await changing
    return len(answers), failed


def test_a_changed_application_rolls_out_without_a_lost_request(
    cluster: Cluster, http: httpx.Client, files: list[bytes], tmp_path: Path
) -> None:
    bundle = renewed(tmp_path / "renewed", 0.2)
    args = {"bundles": [str(bundle)], "replicas": SCALE}
    wait_for(lambda: len(replicas("offramp")) == COUNT)
    done = asyncio.run(under_load(cluster, files, lambda: cluster.deploy(args).close()))
    assert done == (400, 0)
    wait_for(lambda: http.get("/v1/models/tiny").json()["version"] == "2")


@pytest.mark.parametrize("form", ["replicas", "stages"])
def test_the_example_file_is_deployed_and_changed_in_place(
    cluster: Cluster, files: list[bytes], bundle: Path, tmp_path: Path, form: str
) -> None:
    name = {"replicas": "serve.yaml", "stages": "stages.yaml"}[form]
    file = yaml.safe_load((Path(__file__).parents[2] / "examples" / "ray" / name).read_text())
    (application,) = file["applications"]
    application["args"].update(settings=SETTINGS, bundles=[str(bundle)])
    application["args"]["replicas"].update(SCALE)
    own = {"name": APP, "user_config": {"bundles": [str(bundle)], "policies": {}}}
    application["deployments"] = [own]
    cluster.deploy_file(file)
    with httpx.Client(base_url=cluster.url, timeout=60) as http:
        assert http.get("/v1/models/tiny").json()["version"] == "1"
        wait_for(lambda: len(replicas(APP)) == COUNT)
        before = set(replicas(APP))
        declared = Policy(mode="exit", thresholds=(0.1, 0.1), max_exit=2).model_dump(mode="json")
        own["user_config"] = {
            "bundles": [str(renewed(tmp_path / "renewed", 0.2))],
            "policies": {"tiny": declared},
        }
        done = asyncio.run(under_load(cluster, files, lambda: cluster.deploy_file(file)))
        assert done == (400, 0)

        def changed() -> bool:
            fresh = {"Connection": "close"}
            found = [http.get("/v1/models/tiny", headers=fresh).json() for _ in range(PROBES)]
            return all(m["version"] == "2" and m["policy"]["max_exit"] == 2 for m in found)

        wait_for(changed)
    # The same processes serve the new bundle.
    assert set(replicas(APP)) == before
