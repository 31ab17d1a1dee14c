"""A real server that starts without a model, with a full standard output or on a system without Unix's
modules, and what SIGHUP reloads."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.servers import SERVE, started
from tests.serving.requests import CLASSIFY, as_raw
from tests.serving.tiny_bundle import write_tiny_bundle


def wait_until(condition: Callable[[], bool], within: float = 60) -> None:
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_empty_repository_starts_and_serves_the_first_bundle_that_comes(
    tmp_path: Path, pngs: list[bytes]
) -> None:
    repository = tmp_path / "repository"
    (repository / "bad").mkdir(parents=True)
    (repository / "bad" / "manifest.json").write_text("{")
    command = [*SERVE, "--repository", str(repository), "--watch"]
    with started(command, tmp_path, {"workers": 1}) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert any("serves no model yet" in line for line in server.printed)
        write_tiny_bundle(tmp_path / "new", name="ant").rename(repository / "ant")
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        assert httpx.post(f"{server.url}{CLASSIFY}", **as_raw(pngs[0])).json()["model"] == "ant"
        assert server.terminate() == 0


def test_a_full_standard_output_does_not_stop_the_server(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*SERVE[:-1], str(port), str(bundle_path), "--access-log"]
    errors = tmp_path / "stderr"
    with Path("/dev/full").open("wb") as full, errors.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=full, stderr=stderr)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        for _ in range(3):
            assert httpx.post(f"{url}{CLASSIFY}", **as_raw(pngs[0])).status_code == 200
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors.read_text()
    assert errors.read_text().count("the access log cannot be written") == 1


def test_sighup_reloads_the_key_and_the_repository_and_cuts_no_stream(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_tiny_bundle(repository / "ant", name="ant")
    key = tmp_path / "key"
    key.write_text("the-first-key-of-all")
    settings = {"workers": 1, "api_key_file": key}
    with (
        started([*SERVE, "--repository", str(repository)], tmp_path, settings) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        url = "/v1/models/ant"

        def allowed(key: str) -> bool:
            policy = {"thresholds": [1, 1], "max_exit": 3}
            answer = http.put(f"{url}/policy", json=policy, headers={"X-API-Key": key})
            return answer.status_code == 200

        assert allowed("the-first-key-of-all")
        with socket.create_connection(server.address) as begun:
            begun.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
            key.write_text("the-second-key-of-all")
            write_tiny_bundle(tmp_path / "new", name="bee").rename(repository / "bee")
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(http.get("/v1/models").json()["models"]) == 2)
            wait_until(lambda: any(line.endswith("INFO reloaded\n") for line in server.printed))
            assert allowed("the-second-key-of-all")
            assert not allowed("the-first-key-of-all")
            begun.sendall(b"none")
            assert begun.recv(100).startswith(b"HTTP/1.1 415")
        key.write_text("short")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("the key is not reloaded" in line for line in server.printed))
        assert allowed("the-second-key-of-all")
        assert server.terminate() == 0


def test_the_server_needs_no_module_that_other_systems_lack(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in ("fcntl", "resource", "uvloop"))
    code = f"import sys; {hidden}; from offramp.cli import main; sys.argv[0] = 'offramp'; main()"
    command = [SERVE[0], "-c", code, "serve", "--port", "0", str(bundle_path)]
    with started(command, tmp_path, {"workers": 1}) as server:
        assert httpx.post(f"{server.url}{CLASSIFY}", **as_raw(pngs[0])).status_code == 200
        assert server.terminate() == 0
