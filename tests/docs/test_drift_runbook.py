"""The commands from the alert OfframpDrift to another policy, as docs/guide/operations.md has them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from exports.bundle.policy import Policy
from exports.bundle.resolve import CIFAR100
from tests.servers import SERVE, started
from tests.serving.conftest import encode

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "operations.md"
HEADING = "### From the alert to another policy"
IMAGES = 40


def test_every_command_of_the_runbook_works(tmp_path: Path) -> None:
    runbook = GUIDE.read_text("utf-8").split(HEADING)[1].split("\n## ")[0]
    commands = [
        line.strip()
        for block in re.findall(r"```bash\n(.*?)```", runbook, re.DOTALL)
        for line in block.strip().splitlines()
    ]
    (serve,) = re.findall(r"```\n\s*offramp serve (.*)\n", runbook)
    assert len(commands) == 4
    shutil.copytree(CIFAR100, tmp_path / "my-bundle")
    rng = np.random.default_rng(0)
    with started([*SERVE, *serve.split()], tmp_path, {"workers": 1}) as server:
        ids: list[str] = []
        with httpx.Client(base_url=server.url, timeout=30) as http:
            for _ in range(IMAGES):
                content = encode(Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)))
                headers = {"Content-Type": "image/png"}
                answer = http.post("/v1/classify?mode=ensemble", content=content, headers=headers)
                ids.append(answer.headers["X-Request-ID"])
            printed = []
            for command in commands:
                line = command.replace("http://127.0.0.1:8000", server.url)
                line = line.replace("offramp", f"{sys.executable} -m offramp.cli", 1)
                # One label for the guide's REQUEST-ID is one label for each of some answers here.
                for request_id in ids[:30] if "REQUEST-ID" in line else ids[:1]:
                    shell = line.replace("REQUEST-ID", request_id)
                    done = subprocess.run(
                        ["bash", "-ec", shell], cwd=tmp_path, capture_output=True, text=True
                    )
                    assert done.returncode == 0, done.stdout + done.stderr
                    printed.append(done.stdout)
            written = Policy.model_validate_json((tmp_path / "my-bundle/policy.json").read_text())
            in_force = http.get("/v1/models/cifar100-lite0/policy").json()
    assert "sentence" in json.loads(printed[0])
    assert json.loads(printed[1])["label"] == "rocket"
    proposed = " ".join(printed[-2].split())
    assert "30 images have a label that can be used, and this goal takes 600" in proposed
    assert "Nothing is changed" in proposed
    assert in_force["revision"] == 2
    assert Policy.model_validate(in_force["policy"]) == written
