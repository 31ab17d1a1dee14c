"""`serving:app` under a plain uvicorn, as a process and over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serving.connection import SERVER_LIMITS
from tests.servers import SERVE, started

PNG = {"Content-Type": "image/png"}


@dataclass
class PlainServer:
    """`uvicorn serving:app`: its address, its process and where its output goes."""

    url: str
    process: subprocess.Popen[bytes]
    output: Path


@pytest.fixture(scope="module")
def plain_server(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlainServer]:
    output = tmp_path_factory.mktemp("uvicorn") / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "serving:app", "--port", "0"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OFFRAMP_BUNDLES": str(bundle_path), "OFFRAMP_MAX_IMAGES": "2"},
        )
        try:
            yield PlainServer(_address(process, output), process, output)
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], output: Path) -> str:
    while True:
        for line in output.read_text().splitlines():
            if "running on" in line:
                return line.split("running on ")[1].split()[0]
        assert process.poll() is None, output.read_text()
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue


def test_it_answers_with_settings_from_the_environment(
    plain_server: PlainServer, pngs: list[bytes]
) -> None:
    url = f"{plain_server.url}/v1/classify"
    answer = httpx.post(url, content=pngs[0], headers=PNG)
    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny"
    files = [("files", (f"{i}.png", png, "image/png")) for i, png in enumerate(pngs[:3])]
    assert httpx.post(url, files=files).status_code == 400
    assert httpx.get(f"{plain_server.url}/readyz").status_code == 200


def test_one_warning_names_the_limits_that_are_not_in_force(plain_server: PlainServer) -> None:
    lines = plain_server.output.read_text().splitlines()
    (warning,) = [line for line in lines if "not Offramp's own HTTP server" in line]
    for limit in SERVER_LIMITS:
        assert limit in warning
    for setting in ("max_connections", "header_timeout_seconds", "body_timeout_seconds"):
        assert setting in warning


def test_offramp_serve_prints_no_such_warning(tmp_path: Path, bundle_path: Path) -> None:
    with started([*SERVE, str(bundle_path)], tmp_path) as server:
        assert server.terminate() == 0
    assert "not in force" not in "".join(server.printed)


def test_sigterm_ends_it(plain_server: PlainServer) -> None:
    plain_server.process.terminate()
    plain_server.process.wait(20)
    assert "Application shutdown complete" in plain_server.output.read_text()


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, json, serving\n"
        "heavy = ('fastapi', 'uvicorn', 'numpy', 'onnxruntime', 'torch', 'serving.api')\n"
        "loaded = [name for name in heavy if name in sys.modules]\n"
        "serving.app\n"
        "print(json.dumps([loaded, 'torch' in sys.modules, serving.app is serving.app]))\n"
        "serving.app.state.service.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == [[], False, True]


def test_there_is_no_other_lazy_attribute() -> None:
    import serving

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(serving, "nothing")  # noqa: B009
