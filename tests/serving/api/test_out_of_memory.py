"""Too little memory is 503, since the request is right and a retry may succeed."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.inference import engine
from tests.servers import SERVE, started
from tests.serving.conftest import Client, encode
from tests.serving.requests import CLASSIFY, as_json, as_raw, assert_error, metrics

MIB = 1 << 20
# What onnxruntime raises on a CPU, what C++ libraries raise, and what numpy does.
ERRORS = [
    RuntimeError(
        "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"
    ),
    RuntimeError("std::bad_alloc"),
    MemoryError("Unable to allocate 1.0 GiB for an array"),
]


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file that there is too little memory to decode."""
    decode, file = engine.decode_image, encode(Image.new("RGB", (9, 9)))

    def failing(content: bytes, *arguments: Any) -> Any:
        if content == file:
            raise MemoryError
        return decode(content, *arguments)

    monkeypatch.setattr(engine, "decode_image", failing)
    return file


def test_an_image_alone_is_503_with_retry_after(client: Client, without_memory: bytes) -> None:
    answer = client.post(CLASSIFY, **as_raw(without_memory))
    assert_error(answer, 503, "out_of_memory", "try again")
    assert answer.headers["Retry-After"] == "1"
    shown = metrics(client)
    assert 'offramp_requests_total{model="tiny",outcome="out_of_memory"} 1.0' in shown
    assert 'offramp_rejected_total{reason="out_of_memory"} 1.0' in shown


def test_the_other_images_of_a_request_are_answered(
    client: Client, pngs: list[bytes], without_memory: bytes
) -> None:
    answer = client.post(CLASSIFY, **as_json([pngs[0], without_memory, pngs[1]]))
    assert answer.status_code == 200
    first, failed, last = answer.json()["predictions"]
    assert failed["code"] == "out_of_memory"
    assert None not in (first["label"], last["label"])
    assert 'image_errors_total{code="out_of_memory",model="tiny"} 1.0' in metrics(client)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:30])
def test_a_stage_without_memory_is_503_for_its_batch(
    client: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*arguments: object) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(client.app.state.service.models.get(None).engine, "run_stage", failing)
        answer = client.post(CLASSIFY, **as_json(pngs[:2]))
        assert_error(answer, 503, "out_of_memory")
        assert answer.headers["Retry-After"] == "1"
    assert client.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of another process")
def test_a_server_at_its_limit_refuses_a_large_image_and_answers_small_ones(
    bundle_path: Path, pngs: list[bytes], tmp_path: Path
) -> None:
    import resource

    content = io.BytesIO()
    # 147 MB as pixels, in a small file.
    Image.fromarray(np.zeros((7000, 7000, 3), np.uint8)).save(content, "PNG", compress_level=1)
    with (
        started((*SERVE, str(bundle_path)), tmp_path, {"workers": 1}) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        assert http.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        (size,) = re.findall(r"VmSize:\s+(\d+) kB", status)
        limit = 1024 * int(size) + 100 * MIB
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        assert_error(http.post(CLASSIFY, **as_raw(content.getvalue())), 503, "out_of_memory")
        assert http.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200
        assert server.terminate() == 0
