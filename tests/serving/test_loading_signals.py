"""A real server that is asked to stop or to reload, and connected to, while its models load."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The server, whose loading begins with this line and goes on with a line on its standard input.
LOADING = "loading"
SLOW_SERVE = f"""
import sys
from offramp.cli import main
from serving.service import Service

usual = Service.load

def load(service):
    if service.phase == "starting":
        print("{LOADING}", flush=True)
        sys.stdin.readline()
    usual(service)

Service.load = load
main()
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def loading(bundle_path: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server on `port` while it loads."""
    command = [sys.executable, "-c", SLOW_SERVE, "serve", str(bundle_path), "--port", str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{LOADING}\n"
        yield process
        process.kill()


def test_sigterm_ends_it_with_exit_code_0(loading: subprocess.Popen[str]) -> None:
    loading.send_signal(signal.SIGTERM)
    assert loading.wait(20) == 0


def test_sighup_is_ignored_and_connections_are_refused(
    loading: subprocess.Popen[str], port: int
) -> None:
    assert loading.stdin is not None
    assert loading.stdout is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    loading.send_signal(signal.SIGHUP)
    loading.stdin.write("\n")
    loading.stdin.flush()
    assert loading.stdout.readline().startswith("Offramp serves tiny at ")
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
