"""The examples of docs/reference/open-inference-protocol.md work as printed, on the embedded bundle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sklearn.datasets

from tests.servers import Server, started

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "open-inference-protocol.md"
PHOTO = Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = [sys.executable, "-m", "offramp.cli", "serve", "--port", "0"]
    with started(command, tmp_path_factory.mktemp("server")) as server:
        yield server


def run(text: str, command: list[str], server: Server, place: Path) -> str:
    shutil.copy(PHOTO, place / "photo.jpg")
    address = server.url.removeprefix("http://")
    text = text.replace("127.0.0.1:8000", address)
    done = subprocess.run(
        [*command, text], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_examples_work(server: Server, tmp_path: Path) -> None:
    metadata, raw, as_json = blocks("bash")
    assert json.loads(run(metadata, ["bash", "-ec"], server, tmp_path))["platform"] == "onnx_onnxv1"
    run(raw, ["bash", "-ec"], server, tmp_path)
    assert b'"model_name":"cifar100-lite0"' in (tmp_path / "answer.bin").read_bytes()
    answer = json.loads(run(as_json, ["bash", "-ec"], server, tmp_path))
    classes, exit_ = answer["outputs"]
    assert classes["shape"] == [1, 3]
    assert exit_["data"] == [answer["parameters"]["exit"]]


def test_the_python_example_works(server: Server, tmp_path: Path) -> None:
    (example,) = blocks("python")
    assert re.fullmatch(
        r"\[b'\w+'\] \[.+\] \[[12]\]\n", run(example, [sys.executable, "-c"], server, tmp_path)
    )
