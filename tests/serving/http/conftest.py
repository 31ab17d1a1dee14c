"""A server in a thread of the test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.service import Service
from serving.settings import Settings
from tests.serving.live import live


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[int, Service]]:
    with live(settings) as found:
        yield found
