"""Containers' names on this machine: a DNS server, and programs that use only it.

Compose gives every service a name on a private network. Here a name is one or more loopback addresses, on
which real servers listen at the containers' port.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.debian import require

PORT = 8000
DNS = "127.53.0.1"
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a group of its own with its output in `log`; killed at the end."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextlib.contextmanager
def names(addresses: Mapping[str, Sequence[str]], place: Path) -> Iterator[Path]:
    """A DNS server with these names; yields the resolv.conf that uses it."""
    records = [f"--host-record={name},{ip}" for name, ips in addresses.items() for ip in ips]
    command = [
        require("dnsmasq-base", "dnsmasq"),
        *("--keep-in-foreground", "--no-hosts", "--no-resolv", "--conf-file=/dev/null"),
        *("--pid-file", "--user=root", "--bind-interfaces", f"--listen-address={DNS}"),
        *records,
    ]
    resolv = place / "resolv.conf"
    resolv.write_text(f"nameserver {DNS}\n")
    with process(command, place / "dnsmasq.log") as server:
        time.sleep(0.3)
        assert server.poll() is None, (place / "dnsmasq.log").read_text()
        yield resolv


def seeing(resolv: Path, *command: str | Path) -> list[str]:
    """`command` with `resolv` as its private /etc/resolv.conf."""
    shell = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", shell, str(resolv), *map(str, command)]


def server(
    address: str, place: Path, **settings: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The real server as its container starts it, on the container's address; `settings` are variables."""
    command = [sys.executable, "-m", "offramp.cli", "serve"]
    place.mkdir(exist_ok=True)
    return process(
        command,
        place / f"server-{address}.log",
        OFFRAMP_HOST=address,
        OFFRAMP_PORT=str(PORT),
        OFFRAMP_WORKERS="1",
        PYTHONUNBUFFERED="1",
        **settings,
    )


def wait_for(url: str, seconds: float = 60) -> bytes:
    """The body of `url` as soon as it answers 200; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                body: bytes = answer.read()
                return body
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
