"""The training image: the profile train from its root file system, as its user, beside a server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.hosts import ROOT
from tests.deploy.images import USER, Image, built, stated_size
from tests.deploy.trained import RECIPE, TEACHER, TRAINER, classify, models, watching

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built("training", "training", tmp_path_factory.mktemp("images")) as found:
        yield found


@pytest.fixture
def volumes(tmp_path: Path) -> dict[Path, str]:
    """The mounts of compose: the script, and volumes owned by the image's user."""
    found = {ROOT / "docker" / "train.sh": "/train.sh"}
    for name in ("bundles", "runs", "data"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, int(USER), int(USER))
        found[tmp_path / name] = f"/{name}"
    assert [f"{target}" for target in found.values()] == [
        volume.split(":")[1] for volume in TRAINER["volumes"]
    ]
    return found


def test_the_profile_trains_a_model_that_the_server_then_serves(
    image: Image, volumes: dict[Path, str], tmp_path: Path
) -> None:
    command = image.command(*TRAINER["entrypoint"], RECIPE, TEACHER, mounts=volumes)
    with watching(tmp_path / "bundles", tmp_path / "server.log") as url:
        before = models(url)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (prediction,) = classify(url)["predictions"]
        assert prediction["label"] in set("0123456789")
        assert models(url) == [*before, RECIPE]


def test_compile_without_a_compiler_is_refused_in_one_sentence(
    image: Image, volumes: dict[Path, str]
) -> None:
    train = ("offramp", "train", TEACHER, "--runs", "/runs", "--compile")
    done = subprocess.run(
        image.command(*train, mounts=volumes), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--compile needs a compiler" in done.stderr.splitlines()[-1]


def test_the_image_has_no_installer_and_no_compiler(image: Image) -> None:
    assert image.tools("gcc", "cc", "make", "nvcc", "ptxas", "pip", "pip3", "curl", "git") == []
    assert not list(image.root.glob("opt/offramp/lib/python3*/site-packages/triton"))
    assert image.leftovers() == []
    assert image.owned() == {"bundles", "data", "runs"}


def test_the_guide_states_the_size(image: Image) -> None:
    print(f"offramp:training holds {image.size:g} MB")
    assert image.size == pytest.approx(stated_size("offramp:training"), rel=0.02)
