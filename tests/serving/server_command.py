"""The command that starts a small server for tests."""

from __future__ import annotations

import sys
from pathlib import Path

MAX_IMAGES = 8
MAX_BODY_BYTES = 1_000_000
MAX_PIXELS = 1_000_000
API_KEY = "a-key-for-tests-alone"


def command(bundle: Path) -> list[str]:
    """`offramp serve` on any free port, with limits that tests can reach."""
    limits = {
        "MAX_IMAGES": MAX_IMAGES,
        "MAX_BODY_BYTES": MAX_BODY_BYTES,
        "MAX_PIXELS": MAX_PIXELS,
        "WORKERS": 2,
        "API_KEY": API_KEY,
    }
    settings = [f"OFFRAMP_{name}={value}" for name, value in limits.items()]
    serve = [sys.executable, "-m", "offramp.cli", "serve", str(bundle), "--port", "0"]
    return ["env", *settings, *serve]
