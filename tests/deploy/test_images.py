"""The serving image for CPUs: built, started and used."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from offramp import __version__
from serving.api.examples import sample_image
from tests.deploy.images import USER, Image, ask, built, run, stated_size

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built("serving", "serving-cpu", tmp_path_factory.mktemp("images")) as found:
        yield found


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The process of a server started by the image's own command."""
    with image.server(tmp_path_factory.mktemp("container") / "log") as server:
        yield server


def test_the_server_in_the_image_classifies(container: int) -> None:
    answer = json.loads(ask(container, "/v1/classify", base64.b64decode(sample_image(32, 32))))
    assert len(answer["predictions"]) == 1
    assert json.loads(ask(container, "/openapi.json"))["info"]["version"] == __version__


@pytest.mark.serial
def test_the_image_s_own_health_check_passes(container: int, image: Image) -> None:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    inside = (
        *("nsenter", "-t", str(container), "-n"),
        *("chroot", f"--userspec={USER}:{USER}", image.root),
    )
    run(*inside, "env", "-i", *image.config["Env"], *command)


def test_the_image_has_no_installer_and_no_compiler(image: Image) -> None:
    assert image.tools("gcc", "cc", "make", "pip", "pip3", "curl", "git") == []
    assert not list((image.root / "opt/offramp").glob("lib/python3*/site-packages/torch"))


def test_no_cache_and_no_source_remain(image: Image) -> None:
    assert image.leftovers() == []


def test_the_user_owns_no_program(image: Image) -> None:
    assert image.owned() == {"bundles", "data", "runs"}


def test_the_guide_states_the_size(image: Image) -> None:
    assert image.size == pytest.approx(stated_size("offramp:cpu"), rel=0.02)
