"""A teacher trained once for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.teachers.recipes import run, teacher


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs that holds the teacher's; nothing is written into it."""
    place = tmp_path_factory.mktemp("trained")
    run(place, teacher())
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "runs")
