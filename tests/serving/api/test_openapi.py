"""The server conforms to its own OpenAPI: schemathesis makes requests from the schema."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import Server, started
from tests.serving.server_command import API_KEY, command
from tests.serving.tiny_bundle import write_tiny_bundle

CONFIG = Path(__file__).with_name("schemathesis.toml")
# With a key in every request, the check of routes without one cannot pass.
ADMIN = ("--header", f"X-API-Key: {API_KEY}", "--exclude-checks", "ignored_auth")
SCHEMATHESIS = (sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server for one test: with the key its models may be unloaded."""
    bundle = write_tiny_bundle(tmp_path / "tiny", maps=True)
    with started(command(bundle), tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("who", "options"),
    [
        ("anybody", ["--phases", "coverage"]),
        ("the admin", ["--phases", "fuzzing,stateful", "--max-examples", "3", *ADMIN]),
    ],
)
def test_every_route_does_as_documented(
    own: Server, tmp_path: Path, who: str, options: list[str]
) -> None:
    done = subprocess.run(
        [
            *(*SCHEMATHESIS, "--config-file", str(CONFIG), "run", f"{own.url}/openapi.json"),
            *("--no-color", "--request-timeout", "20", *options),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in "".join(own.printed)
    with httpx.Client(base_url=own.url) as http:
        paths = http.get("/openapi.json").json()["paths"]
        operations = sum(len(operations) for operations in paths.values())
        assert f"Tested: {operations}" in done.stdout
        # Some requests reached the network.
        assert 'outcome="ok"' in http.get("/metrics").text
        assert http.get("/livez").status_code == 200


def test_pairs_are_arrays_that_every_generator_of_clients_knows(own: Server) -> None:
    described = httpx.get(f"{own.url}/openapi.json").json()
    assert "prefixItems" not in str(described)
    interval = described["components"]["schemas"]["Preview"]["properties"]["drop_interval"]
    assert interval["items"] == {"type": "number"}
    assert interval["minItems"] == interval["maxItems"] == 2
