"""The serving image for GPUs, on a machine without one: it reports that, or serves on the CPU."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.api.examples import sample_image
from tests.deploy.images import Image, ask, built, stated_size

pytestmark = pytest.mark.deploy
# The dependencies of onnxruntime's CUDA provider that are missing after its own code has loaded the packages'
# libraries.
MISSING = """
import pathlib, subprocess, onnxruntime
onnxruntime.preload_dlls()
loaded = {line.split("/")[-1].strip() for line in open("/proc/self/maps") if "/" in line}
provider = pathlib.Path(onnxruntime.__file__).with_name("capi") / "libonnxruntime_providers_cuda.so"
output = subprocess.run(["ldd", provider], capture_output=True, text=True, check=True).stdout
wanted = {line.split()[0] for line in output.splitlines() if "not found" in line}
print(*sorted(wanted - loaded))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built("serving", "serving-gpu", tmp_path_factory.mktemp("images")) as found:
        yield found


def test_cuda_without_a_gpu_is_refused_in_one_sentence(image: Image) -> None:
    command = image.command(*image.config["Entrypoint"], "serve", "--provider", "cuda")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "no NVIDIA driver here" in line


def test_auto_serves_on_the_cpu(image: Image, tmp_path: Path) -> None:
    command = (*image.config["Entrypoint"], "serve", "--provider", "auto")
    with image.server(tmp_path / "log", *command) as container:
        answer = json.loads(ask(container, "/v1/classify", base64.b64decode(sample_image(32, 32))))
        assert len(answer["predictions"]) == 1
        (model,) = json.loads(ask(container, "/v1/models"))["models"]
    assert model["provider"] == "CPUExecutionProvider"
    assert "onnxruntime:" not in (tmp_path / "log").read_text()


def test_the_cuda_provider_lacks_only_the_driver(image: Image) -> None:
    command = image.command("python3", "-c", MISSING)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["libcuda.so.1"]


def test_every_cuda_library_finds_its_dependencies(image: Image) -> None:
    """cuDNN and others load some parts only when a network needs them."""
    folders = [
        f"/{path.relative_to(image.root)}"
        for path in image.root.glob("opt/offramp/lib/*/site-packages/nvidia/*/lib")
    ]
    libraries = [
        f"/{path.relative_to(image.root)}"
        for folder in folders
        for path in (image.root / folder[1:]).glob("lib*.so*")
    ]
    assert any("cudnn" in library for library in libraries)
    output = subprocess.run(
        image.command("ldd", *libraries, environment={"LD_LIBRARY_PATH": os.pathsep.join(folders)}),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {line.split()[0] for line in output.splitlines() if "not found" in line} <= {
        "libcuda.so.1"
    }


def test_the_image_has_no_installer_and_no_compiler(image: Image) -> None:
    assert image.tools("gcc", "cc", "make", "nvcc", "pip", "pip3", "curl", "git") == []
    assert image.leftovers() == []
    assert image.owned() == {"bundles", "data", "runs"}


def test_the_guide_states_the_size(image: Image) -> None:
    print(f"offramp:gpu holds {image.size:g} MB")
    assert image.size == pytest.approx(stated_size("offramp:gpu"), rel=0.02)
