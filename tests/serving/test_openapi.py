"""The server keeps to its own OpenAPI, whatever is sent: schemathesis makes requests from the schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from tests.servers import Server

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_every_route_does_as_documented(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(CONFIG), "run", f"{server.url}/openapi.json"),
            *("--no-color", "--request-timeout", "20", "--max-time", "40"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    operations = sum(len(verbs) for verbs in http.get("/openapi.json").json()["paths"].values())
    assert f"Tested: {operations}" in done.stdout
    # It got through to the network, too.
    assert 'outcome="ok"' in http.get("/metrics").text
    assert http.get("/readyz").status_code == 200
