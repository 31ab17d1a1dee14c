"""Starting the real server as a process, and stopping it as an operator would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Server:
    """A running server: its address, what it has printed so far, and its process."""

    url: str
    printed: list[str]
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect a socket to."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def terminate(self, within: float = 20) -> int:
        """Send SIGTERM to the server and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)


SERVE = (sys.executable, "-m", "offramp.cli", "serve", "--port", "0")


@contextlib.contextmanager
def started(
    command: Sequence[str], cwd: Path, settings: Mapping[str, object] | None = None
) -> Iterator[Server]:
    """Run `command` until it prints an address; kill its whole process group at the end.

    `settings` are the server's, by name, given through the environment.
    """
    given = {f"OFFRAMP_{name.upper()}": str(value) for name, value in (settings or {}).items()}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **given},
    )
    printed: list[str] = []
    found = threading.Event()
    urls: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            match = re.search(r"http://[\d.]+:\d+", line)
            if match and not urls:
                urls.append(match.group())
            if line.startswith("  curl"):
                found.set()
        found.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert found.wait(120), "".join(printed)
        assert urls, "".join(printed)
        yield Server(urls[0], printed, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
