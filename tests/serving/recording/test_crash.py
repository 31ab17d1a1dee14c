"""The real server is killed while it records; what it wrote can be tuned on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from exports.tuning.requests.recorded import record_files, whole_lines
from tests.servers import started
from tests.serving.server_command import command
from tests.serving.tiny_bundle import write_tiny_bundle


def test_records_can_be_tuned_on_after_the_server_was_killed(
    tmp_path: Path, pngs: list[bytes]
) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    directory = tmp_path / "records"
    flags = ["--record", str(directory), "--record-full-share", "0.5"]
    labelled = 0
    for _ in range(2):
        with started([*command(bundle), *flags], tmp_path) as server:

            def send(url: str = server.url) -> None:
                with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url) as http:
                    while True:
                        for png in pngs:
                            headers = {"Content-Type": "image/png"}
                            http.post("/v1/classify", content=png, headers=headers)

            senders = [threading.Thread(target=send) for _ in range(3)]
            with httpx.Client(base_url=server.url, timeout=30) as http:
                body = {"Content-Type": "image/png"}
                for png in pngs[:10]:
                    answer = http.post("/v1/classify?threshold=2", content=png, headers=body)
                    request_id = answer.headers["X-Request-ID"]
                    index = answer.json()["predictions"][0]["index"]
                    done = http.post("/v1/feedback", json={"id": request_id, "label": index})
                    assert done.status_code == 200
                    labelled += 1
                for sender in senders:
                    sender.start()
                while lines(directory) < 300 + labelled:
                    http.get("/livez")
            os.kill(server.process.pid, signal.SIGKILL)
            for sender in senders:
                sender.join(30)
    result = tmp_path / "tuned.json"
    tune = [sys.executable, "-m", "offramp.cli", "tune", str(bundle), "--from", str(directory)]
    done = subprocess.run(
        [*tune, "--max-accuracy-drop", "15", "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the {labelled} of them with a label used" in " ".join(done.stdout.split())
    assert json.loads(result.read_text())["source"]["samples"] == labelled


def lines(directory: Path) -> int:
    return sum(1 for file in record_files(directory) for _ in whole_lines(file))
