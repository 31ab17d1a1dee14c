from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.settings import Settings
from tests.serving.conftest import Client

JOBS = "/v1/jobs"
Get = Callable[[str], Any]


@dataclass
class Receiver:
    """A host that is notified of jobs: what it was sent, by path, and the status of its answers."""

    host: str
    sent: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.sent.append((self.path, orjson.loads(body)))
            self.send_response(found.status)
            for header in found.headers.items():
                self.send_header(*header)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"jobs": tmp_path / "jobs"})


@pytest.fixture
def host() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def wait_for(get: Get, id_: str, until: Callable[[Any], bool], within: float = 30) -> Any:
    """Poll the job `id_` until its answer is as `until` says, and return that."""
    end = time.monotonic() + within
    while not until(answer := get(f"{JOBS}/{id_}").json()):
        assert time.monotonic() < end, answer
        time.sleep(0.01)
    return answer


def finished(answer: Any) -> bool:
    return answer["finished"] is not None


def rows_of(get: Get, id_: str) -> list[Any]:
    answer = get(f"{JOBS}/{id_}/results")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [orjson.loads(line) for line in answer.text.splitlines()]


def left(settings: Settings) -> set[str]:
    """What is in the directory of jobs besides its lock."""
    assert settings.jobs is not None
    return {path.name for path in settings.jobs.iterdir()} - {".lock"}


def post(client: Client, query: str = "", **body: Any) -> str:
    """Create a job and return its id."""
    answer = client.post(f"{JOBS}{query}", **body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
