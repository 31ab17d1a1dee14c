"""The profile train without its image: docker/train.sh beside a watching server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.hosts import ROOT
from tests.deploy.trained import RECIPE, TEACHER, classify, models, watching

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories that replace the volumes runs and bundles."""
    found = tmp_path_factory.mktemp("train")
    for volume in ("runs", "bundles"):
        (found / volume).mkdir()
    return found


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    with watching(place / "bundles", place / "server.log") as url:
        yield url


def train(place: Path) -> str:
    """Run the script, which must succeed; returns its output."""
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folders = {"RUNS": str(place / "runs"), "BUNDLES": str(place / "bundles")}
    done = subprocess.run(
        ["sh", ROOT / "docker" / "train.sh", RECIPE, TEACHER],
        cwd=place,
        env={**os.environ, "PATH": tools, **folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_trained_model_is_served_beside_the_existing_ones(place: Path, server: str) -> None:
    before = models(server)
    train(place)
    (prediction,) = classify(server)["predictions"]
    assert prediction["label"] in set("0123456789")
    assert models(server) == [*before, RECIPE]


def test_a_second_run_changes_nothing(place: Path, server: str) -> None:
    def written() -> dict[Path, int]:
        files = (path for path in place.glob("*/**/*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    assert "exists already" in train(place)
    assert written() == before
    assert classify(server)["model"] == RECIPE
