"""Offramp tells nobody about its use, and neither does what it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The embedded bundle, opened and run; onnxruntime writes its id and its reports while it is loaded.
CODE = """
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100
from serving.inference.engine import Engine
Engine(load_bundle(CIFAR100))
"""


def test_onnxruntime_keeps_no_id_and_no_reports(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == []
