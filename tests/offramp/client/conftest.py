"""A server on a real socket with the tiny bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.serving.conftest import bundle_path, images, pngs
from tests.serving.live import live

__all__ = ["bundle_path", "images", "pngs"]
MAX_BODY_BYTES = 1500


@pytest.fixture(scope="session")
def url(bundle_path: Path) -> Iterator[str]:
    """A server with a limit of bodies that a batch of about six images exceeds."""
    settings = Settings(bundles=(bundle_path,), workers=2, max_body_bytes=MAX_BODY_BYTES)
    with live(settings) as (port, _):
        yield f"http://127.0.0.1:{port}"
