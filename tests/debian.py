"""Programs that tests drive and Python does not bring: Debian packages, installed where missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

LOCK = Path(gettempdir()) / "offramp-apt.lock"


def require(package: str, command: str) -> str:
    """The path of `command`; Debian's `package` is installed first if it is missing and we may.

    Raises RuntimeError, in one sentence, where it is unavailable: the test then fails and is not skipped.
    """
    found = _find(command)
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(f"{command} is missing; install it with: apt-get install {package}")
    # Several test processes may want packages at once.
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _find(command):
            print(f"installing Debian's package {package} for the tests", file=sys.stderr)
            _install(package)
    found = _find(command)
    if not found:
        raise RuntimeError(f"Debian's package {package} did not bring {command}.")
    return found


def _find(command: str) -> str | None:
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _install(package: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "--quiet"],
        ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", package],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"{' '.join(command)} failed: {reason}")
