"""Changing the bundle and the policy of a real server under load: no request fails, no answer is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine
from tests.servers import SERVE, started
from tests.serving.http.load import load
from tests.serving.tiny_bundle import write_tiny_bundle

SWAPS = 20
# A long queue: a busy machine may be slow, and that is not tested here.
LONG_QUEUE = {"workers": 2, "max_queue_ms": 60_000}
VERSIONS = ("1", "2", "3")
POLICIES = {
    "1": Policy(thresholds=(0.6, 0.5), max_exit=3),
    "2": Policy(thresholds=(2, 2), max_exit=3),
    "3": Policy(thresholds=(0, 0), max_exit=3),
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of one name with different weights and policies."""
    directory = tmp_path_factory.mktemp("versions")
    return {
        v: write_tiny_bundle(directory / v, version=v, seed=int(v), policy=POLICIES[v])
        for v in VERSIONS
    }


@pytest.fixture(scope="module")
def expected(
    versions: dict[str, Path], images: NDArray[np.uint8]
) -> dict[str, list[tuple[int, int]]]:
    """The class and exit of every image by version, from the engine without a server."""
    expected = {}
    for version, path in versions.items():
        engine = Engine(load_bundle(path))
        predictions = engine.classify(images, POLICIES[version])
        expected[version] = [(p.index, p.exit) for p in predictions]
    return expected


def replace_by_copy(path: Path, source: Path) -> None:
    """Replace `path` by a copy of the bundle `source`, by renaming."""
    new, old = path.with_name(".new"), path.with_name(".old")
    shutil.copytree(source, new)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def test_no_request_fails_during_twenty_swaps(
    tmp_path: Path,
    versions: dict[str, Path],
    expected: dict[str, list[tuple[int, int]]],
    pngs: list[bytes],
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    replace_by_copy(repository / "tiny", versions["1"])
    seen: set[str] = set()

    def is_right(number: int, answer: Any) -> bool:
        (prediction,) = answer["predictions"]
        seen.add(answer["version"])
        return (prediction["index"], prediction["exit"]) == expected[answer["version"]][number]

    with (
        started(SERVE, tmp_path, {"repository": repository, **LONG_QUEUE}) as server,
        load(server.address, pngs, is_right, connections=8) as clients,
        httpx.Client(base_url=server.url, timeout=60) as admin,
    ):
        clients.wait_for(50)
        for swap in range(SWAPS):
            version = VERSIONS[(swap + 1) % len(VERSIONS)]
            replace_by_copy(repository / "tiny", versions[version])
            answer = admin.put("/v1/models/tiny")
            assert answer.status_code == 200, answer.text
            assert answer.json()["version"] == version
            clients.wait_for(5)
        # A bad bundle is refused, and requests do not notice.
        (repository / "tiny" / "stage1.onnx").write_bytes(b"no graph")
        assert admin.put("/v1/models/tiny").json()["code"] == "bad_bundle"
        clients.wait_for(20)
    assert clients.wrong == []
    assert seen == set(VERSIONS)


def test_every_answer_is_right_for_one_of_the_policies_while_they_change(
    tmp_path: Path, versions: dict[str, Path], images: NDArray[np.uint8], pngs: list[bytes]
) -> None:
    engine = Engine(load_bundle(versions["1"]))
    expected = [
        [(p.index, p.exit) for p in engine.classify(images, policy)] for policy in POLICIES.values()
    ]

    def is_right(number: int, answer: Any) -> bool:
        (prediction,) = answer["predictions"]
        return (prediction["index"], prediction["exit"]) in [
            answers[number] for answers in expected
        ]

    with (
        started([*SERVE, str(versions["1"])], tmp_path, LONG_QUEUE) as server,
        load(server.address, pngs, is_right, connections=8) as clients,
        httpx.Client(base_url=server.url, timeout=60) as admin,
    ):
        for change in range(60):
            policy = POLICIES[VERSIONS[change % len(VERSIONS)]]
            answer = admin.put(
                "/v1/models/tiny/policy",
                json=policy.model_dump(mode="json"),
                headers={"If-Match": f'"{change + 1}"'},
            )
            assert answer.status_code == 200, answer.text
        clients.wait_for(20)
    assert clients.wrong == []
