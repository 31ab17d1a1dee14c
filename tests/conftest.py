"""What all tests share: a network trained and exported once, by the very commands of the README, and how
several processes of pytest-xdist take turns."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from tests.commands import call
from tests.turns import made_once, turn

# Read when torch is loaded, by the commands that tests start too. Networks of this size are slower on
# several threads, and there may be a pytest process for every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure of a property.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

README = Path(__file__).parents[1] / "README.md"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """A test marked `serial` runs, fixtures included, while the other processes hold still."""
    with turn(alone=item.get_closest_marker("serial") is not None):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files come first, so that no process is left with one at the end. Files with tests marked
    `serial` come last: those wait for the tests of the other processes, which are short by then."""
    serial = {item.path for item in items if item.get_closest_marker("serial")}
    items.sort(key=lambda item: (item.path in serial, "training" not in item.path.parts))


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
def shared_tmp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this test run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def workplace(shared_tmp: Path) -> Path:
    """A directory with runs/digits-teacher, runs/digits-oto and the bundle digits; not to be changed."""
    place = shared_tmp / "workplace"
    commands = [
        c.split() for c in readme_commands() if c.startswith(("offramp train", "offramp export"))
    ]
    assert len(commands) == 3
    with made_once(place) as first:
        if first:
            half = place.with_name("workplace-in-the-making")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            with contextlib.chdir(half):
                for _, *arguments in commands:
                    done = call(*arguments)
                    assert done.code == 0, done.err
            half.rename(place)
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


@pytest.fixture(scope="session")
def cifar_test(cifar_root: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """CIFAR-100's test split: images [10000, 32, 32, 3] and their classes [10000]."""
    with (cifar_root / "cifar-100-python" / "test").open("rb") as file:
        content = pickle.load(file, encoding="bytes")
    images = content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(content[b"fine_labels"], np.int64)
