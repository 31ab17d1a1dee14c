"""Runs the load generator as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness.server import ROOT, pinned


def load(
    port: int, packed: Path, seconds: float, *options: str, cores: Sequence[int] = ()
) -> dict[str, Any]:
    """The report of `benchmarks.harness.load` with `options`, on `cores` alone if there are any."""
    command = [sys.executable, "-m", "benchmarks.harness.load", "--port", str(port)]
    command += ["--images", str(packed), "--seconds", str(seconds), *options]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, cwd=ROOT, preexec_fn=pinned(cores)
    )
    report: dict[str, Any] = orjson.loads(done.stdout)
    return report
