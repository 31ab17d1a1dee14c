"""`offramp serve --ray` as a process."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx
import pytest

from serving.inference.engine import Prediction
from tests.ray.conftest import check
from tests.servers import started

pytestmark = pytest.mark.deploy


@pytest.mark.parametrize("form", ["replicas", "stages"])
def test_it_serves_until_it_is_terminated(
    bundle: Path, files: list[bytes], expected: list[Prediction], tmp_path: Path, form: str
) -> None:
    command = [sys.executable, "-m", "offramp.cli", "serve", "--ray", "--form", form]
    # A relative path: workers have other working directories.
    with started([*command, "--port", "0", bundle.name], cwd=bundle.parent) as server:
        for file, wanted in zip(files[::8], expected[::8], strict=True):
            reply = httpx.post(
                f"{server.url}/v1/classify", content=file, headers={"Content-Type": "image/png"}
            )
            check(reply.json(), wanted)
        policy = httpx.get(f"{server.url}/v1/models/tiny/policy").json()["policy"]
        put = httpx.put(f"{server.url}/v1/models/tiny/policy", json=policy)
        assert put.json()["revision"] == 2
        assert server.terminate(within=60) == 0
        text = "".join(server.printed)
    assert re.search(rf"on Ray, in the form {form}; metrics at http://[\d.]+:\d+/metrics", text)
