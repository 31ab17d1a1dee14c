"""Images built from the Dockerfile without an engine, and containers started as an engine would.

buildah runs every step in a chroot, on a base made by debootstrap under the base image's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.debian import require
from tests.deploy.hosts import ROOT, process

BASE = "docker.io/library/debian:trixie-slim"
USER = "10001"
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
# So that downloads work behind a proxy with its own certificate.
CERTIFICATES = "/etc/ssl/certs:/etc/ssl/certs:ro"
QUERY = """
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8000" + sys.argv[1], sys.stdin.buffer.read() or None,
                                 {"Content-Type": "image/png"})
sys.stdout.buffer.write(urllib.request.urlopen(request, timeout=20).read())
"""
# The image's root, read-only; an empty /tmp; the mounts; a private network.
ENTER = f"""
mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs none "$0/tmp" \
&& mount -t proc none "$0/proc" && ip link set lo up || exit 125
while [ "$1" != -- ]; do mount --bind "$1" "$0$2" || exit 125; shift 2; done; shift
exec chroot --userspec={USER}:{USER} "$0" env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image: its configuration, its root file system, and its uncompressed size in MB."""

    config: dict[str, Any]
    root: Path
    size: float

    def command(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> list[str]:
        """`command` in a container of the image: as its user, in its environment and working directory,
        with `mounts` of this machine's files and directories."""
        require("iproute2", "ip")
        assert self.config["User"].split(":")[0] == USER
        variables = [*self.config["Env"], *(f"{k}={v}" for k, v in (environment or {}).items())]
        for source, target in (mounts or {}).items():
            place = self.root / target.removeprefix("/")
            if source.is_dir():
                place.mkdir(exist_ok=True)
            else:
                place.touch()
        places = [str(part) for mount in (mounts or {}).items() for part in mount]
        inside = ["env", "-C", self.config["WorkingDir"] or "/", *command]
        enter = ["unshare", "--mount", "--net", "sh", "-c", ENTER, str(self.root)]
        return [*enter, *places, "--", *variables, *inside]

    @contextlib.contextmanager
    def server(self, log: Path, *command: str, **started: Any) -> Iterator[int]:
        """A server by `command`, by default the image's own: yields its process id once it is ready."""
        own = command or (*self.config["Entrypoint"], *self.config["Cmd"])
        with process(self.command(*own, **started), log) as server:
            end = time.monotonic() + 60
            while "Try it" not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield server.pid

    def leftovers(self) -> list[Path]:
        """Files in directories that should be empty: caches, sources, build results."""
        folders = (
            "root",
            "tmp",
            "var/tmp",
            "source",
            "wheels",
            "var/cache/apt",
            "var/lib/apt/lists",
        )
        found = [path for folder in folders for path in (self.root / folder).rglob("*")]
        named = (".bashrc", ".profile")
        return [path for path in found if path.is_file() and not path.name.startswith(named)]

    def tools(self, *names: str) -> list[Path]:
        """Programs of these names."""
        folders = ("usr/bin", "usr/local/bin", "opt/offramp/bin")
        places = [self.root / folder / name for folder in folders for name in names]
        return [place for place in places if place.exists()]

    def owned(self) -> set[str]:
        """Paths that the container's user could change if the root file system were not read-only."""
        found = run(
            "find", self.root, "-xdev", "-uid", USER, "-not", "-path", f"{self.root}/proc/*"
        )
        return {Path(path).relative_to(self.root).as_posix() for path in found.split()}


def run(*command: str | Path, given: bytes = b"") -> str:
    """The output of `command`, which must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


def ask(container: int, path: str, body: bytes = b"") -> str:
    """The server's answer within its network."""
    return run("nsenter", "-t", str(container), "-n", "python3", "-c", QUERY, path, given=body)


def megabytes(text: str) -> float:
    """The size in `text`, such as 501 MB or 2.95 GB, in MB."""
    value, unit = text.split()
    return float(value) * {"MB": 1, "GB": 1000}[unit]


def stated_size(image: str) -> float:
    """The size, in MB, that the operator's guide states for `image`."""
    lines = (ROOT / "docs" / "guide" / "operations.md").read_text("utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith(f"| `{image}` |"))
    return megabytes(row.split("|")[5].strip())


@contextlib.contextmanager
def built(target: str, lock: str, place: Path) -> Iterator[Image]:
    """The image of `target` with the libraries of `lock`, built in `place` and removed at the end."""
    require("crun", "crun")
    store = (require("buildah", "buildah"), "--root", place / "store", "--runroot", place / "run")
    name = f"localhost/offramp-test:{lock}"
    try:
        _base(store, place / "base")
        options: Sequence[str] = (
            *("--format", "docker", "--pull-never", "--volume", CERTIFICATES),
            *("--target", target, "--build-arg", f"LOCK={lock}"),
        )
        run(*store, "bud", *options, "-f", "docker/Dockerfile", "-t", name, ".")
        config = json.loads(run(*store, "inspect", "--type", "image", name))["Docker"]["config"]
        container = run(*store, "from", "--pull-never", name).strip()
        root = Path(run(*store, "mount", container).strip())
        size = megabytes(run(*store, "images", "--format", "{{.Size}}", name))
        yield Image(config, root, size)
        run(*store, "umount", container)
    finally:
        for kind in ("rm", "rmi"):
            subprocess.run([*store, kind, "--all", "--force"], capture_output=True, check=False)
        shutil.rmtree(place)


def _base(store: Sequence[str | Path], base: Path) -> None:
    """Debian's minimal system, as the Dockerfile's base image."""
    options = ("--variant=minbase", "--include=ca-certificates")
    run(require("debootstrap", "debootstrap"), *options, "trixie", base)
    container = run(*store, "from", "scratch").strip()
    run(*store, "add", "--quiet", container, base, "/")
    run(*store, "commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(base)
