"""One line of JSON for every request."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Scope

from serving.api.access_log import MAX_QUEUED_LINES, AccessLog
from serving.api.app import create_app
from serving.settings import Settings
from tests.servers import SERVE, started
from tests.serving.conftest import Client, lifespan_of
from tests.serving.requests import CLASSIFY, as_json, as_raw


def logged(settings: Settings, ask: Any) -> list[dict[str, Any]]:
    """The lines written while `ask` talks to a server of `settings`."""
    stream = io.BytesIO()
    app: FastAPI = create_app(settings.model_copy(update={"access_log": True}), access=stream)
    with lifespan_of(app) as client:
        ask(client)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_answer_and_its_duration(settings: Settings, pngs: list[bytes]) -> None:
    def ask(client: Client) -> None:
        body = as_json(pngs[:3])
        client.post(f"{CLASSIFY}?threshold=0", **body, headers={"X-Request-ID": "abc"})

    before = datetime.now(UTC)
    (line,) = logged(settings, ask)
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    timing = line.pop("timing_ms")
    confidence = line.pop("confidence")
    assert len(confidence) == 3
    assert all(0 < value <= 1 for value in confidence)
    assert list(timing) == ["decode", "queue", "compute", "total"]
    assert 0 < timing["total"] <= line.pop("duration_ms")
    assert line == {
        "request_id": "abc",
        "client": "127.0.0.1",
        "method": "POST",
        "path": CLASSIFY,
        "status": 200,
        "model": "tiny",
        "exits": [1, 1, 1],
    }


def test_errors_are_logged_with_their_code_and_probes_only_if_they_fail(
    settings: Settings, pngs: list[bytes]
) -> None:
    def ask(client: Client) -> None:
        client.get("/livez")
        client.get("/metrics")
        client.post(CLASSIFY, **as_raw(b"text"))
        client.get("/nowhere?key=secret")
        client.app.state.service.drain()
        client.get("/readyz")

    lines = logged(settings, ask)
    assert [(line["path"], line["status"], line["code"]) for line in lines] == [
        (CLASSIFY, 400, "invalid_image"),
        ("/nowhere", 404, "not_found"),
        ("/readyz", 503, "draining"),
    ]
    assert lines[0]["model"] == "tiny"
    assert "secret" not in json.dumps(lines)


def test_without_the_setting_nothing_is_written(settings: Settings, pngs: list[bytes]) -> None:
    stream = io.BytesIO()
    with lifespan_of(create_app(settings, access=stream)) as client:
        client.post(CLASSIFY, **as_raw(pngs[0]))
    assert stream.getvalue() == b""


def test_the_command_prints_the_lines_on_stdout(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    with started([*SERVE, str(bundle_path), "--access-log"], tmp_path) as server:
        for _ in range(5):
            httpx.post(f"{server.url}{CLASSIFY}", **as_raw(pngs[0]))
        assert server.terminate() == 0
        time.sleep(0.2)
        lines = [json.loads(line) for line in server.printed if line.startswith("{")]
    assert [(line["path"], line["status"]) for line in lines] == 5 * [(CLASSIFY, 200)]


class Blocked(io.RawIOBase):
    """A reader that has stopped reading."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.lines: list[dict[str, Any]] = []

    def write(self, content: Any) -> int:
        assert self.opened.wait(20)
        self.lines += [json.loads(line) for line in content.splitlines()]
        return len(content)


def test_a_reader_that_stops_reading_delays_no_request() -> None:
    stream = Blocked()
    access_log = AccessLog(stream)  # type: ignore[arg-type]
    scope: Scope = {"type": "http", "path": "/", "method": "GET", "client": None}
    began = time.monotonic()
    for _ in range(MAX_QUEUED_LINES + 500):
        access_log.finished(scope, "id", 200, 0.001)
    assert time.monotonic() - began < 5
    stream.opened.set()
    while len(stream.lines) < MAX_QUEUED_LINES:
        assert time.monotonic() - began < 20
        time.sleep(0.01)
    # The number of dropped lines is in the next one.
    access_log.finished(scope, "id", 200, 0.001)
    access_log.close(20)
    dropped = [line["lines_dropped"] for line in stream.lines if "lines_dropped" in line]
    assert dropped == [MAX_QUEUED_LINES + 500 + 1 - len(stream.lines)]


class FullDisk(io.RawIOBase):
    """Has room for `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, content: Any) -> int:
        count = min(self.room, len(content))
        if count == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= count
        self.content += content[:count]
        return count


def test_lines_are_written_again_once_a_full_disk_has_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = FullDisk(room=300)  # one line and a part of the next
    access_log = AccessLog(disk)  # type: ignore[arg-type]
    scope: Scope = {"type": "http", "path": "/", "method": "GET", "client": None}

    def write(count: int) -> None:
        for _ in range(count):
            access_log.finished(scope, "id", 200, 0.001)
        end = time.monotonic() + 10
        while access_log._lines.qsize() or time.monotonic() < end - 9.9:
            assert time.monotonic() < end
            time.sleep(0.01)

    write(20)
    disk.room = 1 << 20
    write(5)
    access_log.close(20)
    lines = [json.loads(line) for line in disk.content.splitlines()]
    dropped = [line["lines_dropped"] for line in lines if "lines_dropped" in line]
    assert len(dropped) == 1
    assert len(lines) + dropped[0] == 25
    assert 5 <= len(lines) < 10
    assert caplog.text.count("the access log cannot be written: No space left on device") == 1


def test_a_reader_that_closes_does_not_end_the_server(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    process = subprocess.Popen(
        [*SERVE, str(bundle_path), "--access-log"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].split()[0]
        while "image/jpeg" not in process.stdout.readline():
            pass
        process.stdout.close()
        for _ in range(3):
            assert httpx.post(f"{url}{CLASSIFY}", **as_raw(pngs[0])).status_code == 200
            time.sleep(0.1)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_opentelemetry_is_not_imported_without_the_setting(bundle_path: Path) -> None:
    code = (
        "import sys; from serving.api.app import create_app; from serving.settings import Settings;"
        f"create_app(Settings(bundles=({str(bundle_path)!r},)));"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.inst'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_an_address_of_kilobytes_is_cut(settings: Settings) -> None:
    (line,) = logged(settings, lambda client: client.get("/" + "x" * 50_000))
    assert len(line["path"]) == 1024
