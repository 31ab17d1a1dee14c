"""The soak benchmark for seconds instead of hours, with a swap every tenth of a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Measures time, so no other test runs beside it.
pytestmark = pytest.mark.serial
ROOT = Path(__file__).parents[2]


def test_memory_stays_flat_under_mixed_load(bundle_path: Path) -> None:
    options = ["--minutes", "0.12", "--bundle", str(bundle_path), "--swap-seconds", "0.1"]
    # An allocator needs time to settle; a leak of one engine per swap would exceed the bound.
    options += ["--bound", "32"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert done.returncode == 0, done.stdout
    assert result["requests"]["swap"] >= 10
    assert min(result["requests"].values()) > 0
