from __future__ import annotations

from pathlib import Path

import pytest

KEY = "the-key-of-the-mobile-app"
UNLIMITED = "the-key-of-the-back-office"


@pytest.fixture
def budgets(tmp_path: Path) -> Path:
    """The tiny bundle's exits cost 1000, 2000 and 3000: `mobile` can pay for 5 images at exit 3, requests
    without a key for one at exit 2."""
    path = tmp_path / "budgets.toml"
    path.write_text(
        f"""
[clients.mobile]
key = "{KEY}"
gmacs_per_second = 0
burst_gmacs = 0.000015

[clients.office]
key = "{UNLIMITED}"

[anonymous]
gmacs_per_second = 0
burst_gmacs = 0.000002
"""
    )
    return path
