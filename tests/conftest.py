"""A network trained and exported once for all tests, through the command line as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def offramp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command `offramp` to its end, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "offramp.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with runs/digits-teacher, runs/digits-oto and the bundle digits."""
    place = tmp_path_factory.mktemp("workplace")
    for arguments in (
        ["train", "digits-teacher", "--device", "cpu"],
        ["train", "digits-oto", "--device", "cpu"],
        ["export", "runs/digits-oto", "-o", "digits"],
    ):
        done = offramp(*arguments, cwd=place)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="session")
def digits_bundle(workplace: Path) -> Path:
    """The exported bundle of the digits student."""
    return workplace / "digits"


@pytest.fixture(scope="session")
def cifar_root() -> Path:
    """Where CIFAR-100 lies, from OFFRAMP_DATA; CI sets it."""
    root = os.environ.get("OFFRAMP_DATA")
    if root is None:
        pytest.skip("OFFRAMP_DATA does not say where CIFAR-100 is")
    return Path(root)
