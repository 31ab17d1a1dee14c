"""The checker of Prometheus accepts /metrics."""

from __future__ import annotations

import subprocess

from tests.debian import require
from tests.serving.conftest import Client
from tests.serving.requests import CLASSIFY, as_json, as_raw


def test_promtool_accepts_the_metrics(client: Client, pngs: list[bytes]) -> None:
    client.post(CLASSIFY, **as_json(pngs[:4]))
    client.post(CLASSIFY, **as_raw(b"text"))
    client.get("/nowhere")
    done = subprocess.run(
        [require("prometheus", "promtool"), "check", "metrics"],
        input=client.get("/metrics").content,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert done.stdout + done.stderr == b""
