"""The Dockerfile really built, without an engine, and the server really started from what came out.

buildah runs every step in a chroot, on a base made by debootstrap that bears the base image's name.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp import __version__
from serving.announce import sample
from tests.debian import require
from tests.deploy.hosts import ROOT, process

BASE = "docker.io/library/debian:trixie-slim"
IMAGE = "localhost/offramp-test:cpu"
USER = "10001"
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
# So that downloads work behind a proxy with a certificate of its own.
CERTIFICATES = "/etc/ssl/certs:/etc/ssl/certs:ro"
QUERY = """
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8000" + sys.argv[1], sys.stdin.buffer.read() or None,
                                 {"Content-Type": "image/png"})
sys.stdout.buffer.write(urllib.request.urlopen(request, timeout=20).read())
"""

pytestmark = pytest.mark.deploy


def run(*command: str | Path, given: bytes = b"") -> str:
    """What `command` prints; it must end well."""
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The serving image, built; taken away again, for it is large."""
    buildah = require("buildah", "buildah")
    require("crun", "crun")
    base = tmp_path_factory.mktemp("base") / "root"
    options = ("--variant=minbase", "--include=ca-certificates")
    run(require("debootstrap", "debootstrap"), *options, "trixie", base)
    container = run(buildah, "from", "scratch").strip()
    run(buildah, "add", "--quiet", container, base, "/")
    run(buildah, "commit", "--quiet", "--rm", container, BASE)
    options = (
        "--format",
        "docker",
        "--pull-never",
        "--volume",
        CERTIFICATES,
        "--target",
        "serving",
    )
    run(buildah, "bud", *options, "-f", "docker/Dockerfile", "-t", IMAGE, ".")
    yield IMAGE
    run(buildah, "rmi", "--force", IMAGE, BASE)


@pytest.fixture(scope="module")
def config(image: str) -> dict[str, Any]:
    """What the image says a container should be."""
    whole = json.loads(run("buildah", "inspect", "--type", "image", image))
    found: dict[str, Any] = whole["Docker"]["config"]
    return found


@pytest.fixture(scope="module")
def root(image: str) -> Iterator[Path]:
    """The image's root file system."""
    container = run("buildah", "from", "--pull-never", image).strip()
    yield Path(run("buildah", "mount", container).strip())
    run("buildah", "rm", container)


@pytest.fixture(scope="module")
def container(
    root: Path, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The process of a server started as an engine would start it: the image's command, user and
    environment, a read-only root, an empty /tmp, a network of its own."""
    assert config["User"].split(":")[0] == USER
    variables = [f"{item}" for item in config["Env"]]
    command = [*config["Entrypoint"], *config["Cmd"]]
    shell = (
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs none "$0/tmp" '
        '&& mount -t proc none "$0/proc" && ip link set lo up '
        f'&& exec chroot --userspec={USER}:{USER} "$0" env -i "$@"'
    )
    require("iproute2", "ip")
    log = tmp_path_factory.mktemp("container") / "log"
    spaces = ("--mount", "--net")
    started = ("unshare", *spaces, "sh", "-c", shell, str(root), *variables, *command)
    with process(started, log) as server:
        end = time.monotonic() + 60
        while "Try it" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield server.pid


def ask(container: int, path: str, body: bytes = b"") -> str:
    """What the server answers within its network."""
    return run("nsenter", "-t", str(container), "-n", "python3", "-c", QUERY, path, given=body)


def test_the_server_in_the_image_classifies(container: int) -> None:
    image = base64.b64decode(sample(32, 32))
    answer = json.loads(ask(container, "/v1/classify", image))
    assert len(answer["predictions"]) == 1
    assert json.loads(ask(container, "/openapi.json"))["info"]["version"] == __version__


def test_the_image_s_own_health_check_passes(
    container: int, root: Path, config: dict[str, Any]
) -> None:
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    inside = ("nsenter", "-t", str(container), "-n", "chroot", f"--userspec={USER}:{USER}", root)
    run(*inside, "env", "-i", *config["Env"], *command)


def test_nothing_in_the_image_installs_or_compiles(root: Path) -> None:
    for name in ("gcc", "cc", "make", "pip", "pip3", "curl", "git"):
        for folder in ("usr/bin", "usr/local/bin", "opt/offramp/bin"):
            assert not (root / folder / name).exists(), name
    assert not list((root / "opt/offramp").glob("lib/python3*/site-packages/torch"))


def test_no_cache_and_no_source_is_left(root: Path) -> None:
    for folder in ("root", "var/cache/apt", "var/lib/apt/lists", "tmp", "source", "wheels"):
        held = [path for path in (root / folder).rglob("*") if path.is_file()]
        assert [path for path in held if not path.name.startswith((".bashrc", ".profile"))] == [], (
            folder
        )


def test_the_user_owns_no_program(root: Path) -> None:
    owned = run("find", root, "-xdev", "-uid", USER, "-not", "-path", f"{root}/proc/*").split()
    assert sorted(Path(path).relative_to(root).as_posix() for path in owned) == [
        "bundles",
        "data",
        "runs",
    ]
