"""A network trained and exported once for all tests, by the very commands of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure of a property.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

README = Path(__file__).parents[1] / "README.md"


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


def readme_commands() -> list[str]:
    """The lines of the README's bash blocks, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with runs/digits-teacher, runs/digits-oto and the bundle digits."""
    place = tmp_path_factory.mktemp("workplace")
    commands = [
        c.split() for c in readme_commands() if c.startswith(("offramp train", "offramp export"))
    ]
    assert len(commands) == 3
    for _, *arguments in commands:
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
