from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.tiny_bundle import write_tiny_bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the bundles `ant` and `bee`."""
    path = tmp_path / "repository"
    for name in ("ant", "bee"):
        write_tiny_bundle(path / name, name=name)
    return path


@pytest.fixture
def client(repository: Path) -> Iterator[Client]:
    """A client of a server with the bundles of the repository."""
    with running(Settings(repository=repository, workers=1)) as client:
        yield client
