"""The packages of KServe and MLServer, each in an environment of its own, against the real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine
from tests.servers import started
from tests.serving.server_command import command
from tests.serving.tiny_bundle import LABELS, SIZE, write_tiny_bundle

pytestmark = pytest.mark.clients
UV = (sys.executable, "-m", "uv")

Send = Callable[[str], Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{index}.png" for index in range(3)]
    rng = np.random.default_rng(7)
    for path, brightness in zip(paths, (0.1, 0.5, 1), strict=True):
        noise = rng.integers(0, 256, (SIZE, SIZE, 3)) * brightness
        Image.fromarray(noise.astype(np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def labels(bundle_path: Path, files: list[Path]) -> list[str]:
    """What the engine answers without a server."""
    bundle = load_bundle(bundle_path)
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    return [LABELS[found.index] for found in Engine(bundle).classify(pixels, bundle.policy)]


@pytest.fixture(scope="module")
def send(
    bundle_path: Path, files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Send]:
    """Installs a package and sends the files with it, by the script of its name."""
    folder = tmp_path_factory.mktemp("clients")

    def run(package: str) -> Any:
        python = folder / package / "bin" / "python"
        subprocess.run([*UV, "venv", "--quiet", folder / package], check=True)
        subprocess.run([*UV, "pip", "install", "--quiet", "--python", python, package], check=True)
        script = Path(__file__).with_name(f"{package}_requests.py")
        sent = subprocess.run(
            [python, script, server.url, *files], check=True, stdout=subprocess.PIPE
        )
        return json.loads(sent.stdout)

    with started(command(bundle_path), folder) as server:
        yield run


def test_kserve_sends_json_and_binary_data(send: Send, labels: list[str]) -> None:
    answer = send("kserve")
    assert answer == {"probes": [True] * 3, "labels": {"json": labels, "binary": labels}}


def test_mlserver_sends_its_base64_codec(send: Send, labels: list[str]) -> None:
    answer = send("mlserver")
    assert answer == {"shape": [3, 1], "content_type": "str", "labels": labels}
