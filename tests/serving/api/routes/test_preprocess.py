"""POST /v1/preprocess: the pixels that a network sees."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.inference.cam import MAX_CAM_REQUESTS
from serving.service import Service
from serving.settings import Settings
from tests.serving.conftest import Client, encode, running
from tests.serving.tiny_bundle import SIZE, write_tiny_bundle

PATH = "/v1/preprocess"
PNG = {"Content-Type": "image/png"}
# The network of stage 3 was imported: it sees the centre of the resized image.
INPUT: dict[str, Any] = {
    **{"side": 4, "resized": 6, "interpolation": "bilinear", "layout": "nchw", "channels": "bgr"},
    **{"mean": [1, 2, 3], "std": [4, 5, 6]},
}


def write_bundle(folder: Path, follower: dict[str, Any]) -> Path:
    """A bundle whose stages 1 and 3 take the image; `follower` is the recipe of the second network."""
    path = write_tiny_bundle(folder / "tiny", image_stages=(1, 3))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["provenance"]["followers"] = [follower]
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    path = write_bundle(tmp_path_factory.mktemp("seen"), {"name": "large.onnx", "input": INPUT})
    settings = Settings(bundles=(path,), workers=1, max_images=8, max_body_bytes=20_000)
    with running(settings) as client:
        yield client


def seen(content: bytes) -> NDArray[np.uint8]:
    shown = Image.open(io.BytesIO(content))
    assert (shown.format, shown.mode) == ("PNG", "RGB")
    return np.asarray(shown)


def test_the_first_stage_sees_the_decoded_image(
    client: Client, images: NDArray[np.uint8], pngs: list[bytes]
) -> None:
    answer = client.post(PATH, content=pngs[3], headers=PNG)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.headers["X-Request-ID"]
    assert np.array_equal(seen(answer.content), images[3])
    photo = encode(Image.new("RGB", (3 * SIZE, 2 * SIZE), (200, 100, 50)))
    answer = client.post(PATH, files=[("files", photo)])
    assert (seen(answer.content) == (200, 100, 50)).all()
    assert seen(answer.content).shape == (SIZE, SIZE, 3)


def test_a_later_stage_sees_what_its_own_network_makes_of_it(
    client: Client, images: NDArray[np.uint8], pngs: list[bytes]
) -> None:
    answer = client.post(PATH, params={"stage": 3}, content=pngs[0], headers=PNG)
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize((6, 6), Image.Resampling.BILINEAR)
        for channel in np.moveaxis(images[0], 2, 0)
    ]
    expected = np.dstack([np.asarray(channel)[1:5, 1:5] for channel in channels])
    assert np.abs(seen(answer.content) - expected).max() <= 0.51


@pytest.mark.parametrize("stage", ["2", "4", "0", "-1", "x", "9" * 50])
def test_a_stage_without_an_image_is_refused(client: Client, pngs: list[bytes], stage: str) -> None:
    answer = client.post(PATH, params={"stage": stage}, content=pngs[0], headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    if stage == "2":
        assert answer.json()["error"] == "stage must be one that takes the image: 1, 3."


def test_the_limits_are_those_of_classification(client: Client, pngs: list[bytes]) -> None:
    several = client.post(PATH, files=[("files", one) for one in pngs[:2]])
    assert several.json()["error"] == "Pixels are of one image at a time, not of 2."
    large = client.post(PATH, content=b"x" * 20_001, headers=PNG)
    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    broken = client.post(PATH, content=b"no image", headers=PNG)
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_image")
    text = client.post(PATH, content=b"x", headers={"Content-Type": "text/plain"})
    assert (text.status_code, text.json()["code"]) == (415, "unsupported_type")
    unknown = client.post(PATH, params={"model": "none"}, content=pngs[0], headers=PNG)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert client.get(PATH).status_code == 405


def test_too_many_requests_are_refused_with_retry_after(client: Client, pngs: list[bytes]) -> None:
    service: Service = client.app.state.service
    go = threading.Event()

    async def fill() -> list[asyncio.Task[bool]]:
        tasks = [
            asyncio.create_task(service.cam_queue.take(lambda: go.wait(20)))
            for _ in range(MAX_CAM_REQUESTS)
        ]
        await asyncio.sleep(0)
        return tasks

    tasks = client.runner.run(fill())
    answer = client.post(PATH, content=pngs[0], headers=PNG)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    go.set()
    client.runner.run(asyncio.wait(tasks))


@pytest.mark.parametrize(
    "recipe", [{"onnx": {"file": "large.onnx"}}, {"input": INPUT | {"resized": 10**9}}]
)
def test_a_bundle_that_does_not_say_what_a_stage_sees_is_answered_with_404(
    recipe: dict[str, Any], tmp_path: Path, pngs: list[bytes]
) -> None:
    settings = Settings(bundles=(write_bundle(tmp_path, recipe),), workers=1)
    with running(settings) as client:
        answer = client.post(PATH, params={"stage": 3}, content=pngs[0], headers=PNG)
        assert client.post("/v1/classify", content=pngs[0], headers=PNG).status_code == 200
    assert answer.status_code == 404
    assert "does not say how its stages prepare their images" in answer.json()["error"]


def test_the_answer_is_documented_as_a_png(client: Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][PATH]["post"]
    assert list(operation["responses"]["200"]["content"]) == ["image/png"]
    assert {p["name"] for p in operation["parameters"]} == {"model", "stage"}
    assert "image/jpeg" in operation["requestBody"]["content"]
