"""Train, export, serve and stop, with real processes over a real socket."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine
from tests.conftest import offramp
from tests.servers import Server, started
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

SERVE = [sys.executable, "-m", "offramp.cli", "serve"]


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server(digits_bundle: Path) -> Iterator[Server]:
    with started([*SERVE, str(digits_bundle), "--port", "0"], digits_bundle.parent) as running:
        yield running


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return load_dataset(DataRecipe(name="digits", held_out=1), Path("unused")).test.images[:30]


def test_the_server_answers_as_the_engine_does(
    server: Server, digits_bundle: Path, images: np.ndarray
) -> None:
    bundle = load_bundle(digits_bundle)
    expected = Engine(bundle).classify(images, bundle.policy.override(threshold=0.8))
    with httpx.Client(base_url=server.url) as client:
        for image, want in zip(images, expected, strict=True):
            answer = client.post(
                "/v1/classify?threshold=0.8",
                content=png(image),
                headers={"Content-Type": "image/png"},
            )
            assert answer.status_code == 200, answer.text
            got = answer.json()["predictions"][0]
            assert (got["index"], got["exit"], got["exits"]) == (want.index, want.exit, 4)
            assert got["label"] == str(want.index)
            assert got["confidence"] == pytest.approx(want.confidence, abs=1e-4)
    assert len({prediction.exit for prediction in expected}) > 1


def test_three_body_forms_give_one_answer(server: Server, images: np.ndarray) -> None:
    content = [png(image) for image in images[:3]]
    with httpx.Client(base_url=server.url) as client:
        files = [("files", (f"{i}.png", c, "image/png")) for i, c in enumerate(content)]
        multipart = client.post("/v1/classify", files=files).json()
        body = {"images": [base64.b64encode(c).decode() for c in content]}
        as_json = client.post("/v1/classify", json=body).json()
        raw = [
            client.post("/v1/classify", content=c, headers={"Content-Type": "image/png"}).json()
            for c in content
        ]
    single = [answer["predictions"][0] for answer in raw]
    for many in (multipart["predictions"], as_json["predictions"]):
        assert [(p["index"], p["exit"]) for p in many] == [(p["index"], p["exit"]) for p in single]


@pytest.mark.parametrize(
    ("query", "exits"),
    [
        ({"threshold": "0"}, {1}),
        ({"threshold": "1.01"}, {4}),
        ({"threshold": "1.01", "max_exit": "2"}, {2}),
        ({"mode": "ensemble"}, {4}),
        ({"mode": "exit", "max_exit": "3"}, {3}),
    ],
)
def test_a_request_chooses_its_own_depth(
    server: Server, images: np.ndarray, query: dict[str, str], exits: set[int]
) -> None:
    body = {"images": [base64.b64encode(png(image)).decode() for image in images]}
    answer = httpx.post(f"{server.url}/v1/classify", json=body, params=query).json()
    assert {prediction["exit"] for prediction in answer["predictions"]} == exits


def test_metrics_count_what_was_served(digits_bundle: Path, images: np.ndarray) -> None:
    with started([*SERVE, str(digits_bundle), "--port", "0"], digits_bundle.parent) as running:
        with httpx.Client(base_url=running.url) as client:
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 200
            exits = []
            for image in images:
                answer = client.post(
                    "/v1/classify", content=png(image), headers={"Content-Type": "image/png"}
                )
                exits.append(answer.json()["predictions"][0]["exit"])
            metrics = client.get("/metrics").text
        for exit_ in set(exits):
            line = (
                f'offramp_exits_total{{exit="{exit_}",model="digits-oto"}} {exits.count(exit_)}.0'
            )
            assert line in metrics
        assert running.terminate() == 0


def test_sigterm_lets_accepted_requests_finish(digits_bundle: Path, images: np.ndarray) -> None:
    """A request whose body is still on its way when SIGTERM comes is answered; then the exit is 0."""
    body = png(images[0])
    with started([*SERVE, str(digits_bundle), "--port", "0"], digits_bundle.parent) as running:
        address = urlsplit(running.url)
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            head = (
                "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:20])
            time.sleep(0.5)
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(body[20:])
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        assert b'"predictions"' in answer
        assert running.process.wait(20) == 0


def test_what_is_not_http_gets_an_error_of_the_same_form(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {
        "error": "The request is not valid HTTP.",
        "code": "invalid_request",
    }


def test_classify_answers_the_same_in_process(
    server: Server, digits_bundle: Path, images: np.ndarray, tmp_path: Path
) -> None:
    for i, image in enumerate(images[:5]):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    names = [f"{i}.png" for i in range(5)]
    done = offramp("classify", *names, "--bundle", str(digits_bundle), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mine = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in mine] == names
    for name, got in zip(names, mine, strict=True):
        answer = httpx.post(
            f"{server.url}/v1/classify",
            content=(tmp_path / name).read_bytes(),
            headers={"Content-Type": "image/png"},
        )
        assert answer.json()["predictions"] == got["predictions"]


def test_a_port_in_use_is_said_in_one_sentence(server: Server, digits_bundle: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    done = offramp("serve", str(digits_bundle), "--port", port, cwd=digits_bundle.parent)
    assert done.returncode == 2
    assert port in done.stderr
    assert done.stderr.count("\n") == 1


def test_serving_loads_neither_torch_nor_onnx(digits_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from serving.api.app import create_app; from serving.inference.engine import Engine;"
        "from exports.bundle.reader import load_bundle; from pathlib import Path;"
        f"Engine(load_bundle(Path({str(digits_bundle)!r})));"
        "print([m for m in ('torch', 'onnx', 'training.run') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
