"""The profile train without its image: docker/train.sh with recipes of one epoch, and a watching server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.deploy import one_epoch
from tests.deploy.hosts import ROOT, wait_for
from tests.deploy.trained import RECIPE, TEACHER, classify, models, watching

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directories that replace the volumes runs and bundles, and bin with the command `offramp`."""
    found = tmp_path_factory.mktemp("train")
    for volume in ("runs", "bundles"):
        (found / volume).mkdir()
    with one_epoch.command(found):
        yield found


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    with watching(place / "bundles", place / "server.log") as url:
        yield url


def train(place: Path, *arguments: str | Path) -> str:
    """Run the script, which must succeed; returns its output."""
    tools = f"{place / 'bin'}:{os.environ['PATH']}"
    folders = {"RUNS": str(place / "runs"), "BUNDLES": str(place / "bundles")}
    done = subprocess.run(
        ["sh", ROOT / "docker" / "train.sh", *arguments],
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
    train(place, RECIPE, TEACHER)
    (prediction,) = classify(server)["predictions"]
    assert prediction["label"] in set("0123456789")
    assert models(server) == [*before, RECIPE]


def test_a_second_run_changes_nothing(place: Path, server: str) -> None:
    def written() -> dict[Path, int]:
        files = (path for path in place.glob("*/**/*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    assert "exists already" in train(place, RECIPE, TEACHER)
    assert written() == before
    assert classify(server)["model"] == RECIPE


def test_a_folder_of_images_is_trained_and_served(place: Path, server: str) -> None:
    photos = place / "My Photos"
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (photos / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(level, level + 40, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{number}.png")
    train(place, photos, "--from-scratch", "--no-refit")
    wait_for(f"{server}/v1/models/my-photos", seconds=60)
    assert "exists already" in train(place, photos, "--from-scratch", "--no-refit")
