"""POST /v1/classify/maps: class-activation maps, whose graph is opened at the first request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from exports.bundle.reader import Bundle
from serving.errors import OverCapacityError
from serving.inference.cam import MAX_CAM_REQUESTS, CamQueue
from serving.inference.engine import Prediction
from serving.service import Service
from serving.settings import Settings
from tests.serving.conftest import Client, encode, running
from tests.serving.tiny_bundle import EXITS, LABELS, SIZE, write_tiny_bundle
from tests.sessions import plain_session

PATH = "/v1/classify/maps"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny", maps=True)


@pytest.fixture
def client(mapped: Path) -> Iterator[Client]:
    settings = Settings(bundles=(mapped,), workers=2, max_images=8, max_body_bytes=20_000)
    with running(settings) as client:
        yield client


def service_of(client: Client) -> Service:
    service: Service = client.app.state.service
    return service


def expected_maps(bundle: Path, image: NDArray[np.uint8], index: int) -> list[NDArray[np.float32]]:
    session = plain_session(bundle / "maps.onnx")
    positive = [np.maximum(one[0, index], 0) for one in session.run(None, {"image": image[None]})]
    return [one / max(one.max(), 1e-9) for one in positive]


def test_the_model_reports_that_it_has_maps(client: Client) -> None:
    assert client.get("/v1/models/tiny").json()["maps"] is True


def test_maps_are_of_the_answer_and_relative_to_their_peak(
    client: Client,
    mapped: Path,
    bundle: Bundle,
    images: NDArray[np.uint8],
    pngs: list[bytes],
    expected: list[Prediction],
) -> None:
    for number in (0, 20, 39):
        answer = client.post(PATH, content=pngs[number], headers=PNG)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        index = expected[number].index
        assert found["model"] == "tiny"
        assert found["class"] == {"label": LABELS[index], "index": index}
        assert [one["exit"] for one in found["exits"]] == list(range(1, EXITS + 1))
        for one, wanted in zip(
            found["exits"], expected_maps(mapped, images[number], index), strict=True
        ):
            assert (one["height"], one["width"]) == wanted.shape
            np.testing.assert_allclose(one["values"], wanted.ravel(), atol=6e-4)
            assert max(one["values"]) in (0, 1)


@pytest.mark.parametrize(("wanted", "index"), [("dog", 3), ("5", 5)])
def test_a_class_is_named_by_label_or_index(
    client: Client, pngs: list[bytes], wanted: str, index: int
) -> None:
    found = client.post(PATH, params={"class": wanted}, content=pngs[0], headers=PNG).json()
    assert found["class"] == {"label": LABELS[index], "index": index}


@pytest.mark.parametrize("wanted", ["", "wolf", "7", "-1", "²", "9" * 5000])
def test_a_class_that_does_not_exist_is_refused(
    client: Client, pngs: list[bytes], wanted: str
) -> None:
    answer = client.post(PATH, params={"class": wanted}, content=pngs[0], headers=PNG)
    assert answer.status_code == 400
    assert answer.json()["error"] == "class must be a label of the model or an index from 0 to 6."


def test_exactly_one_image_is_accepted(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(PATH, files=[("files", one) for one in pngs[:1]])
    assert answer.status_code == 200
    answer = client.post(PATH, files=[("files", one) for one in pngs[:2]])
    assert answer.status_code == 400
    assert answer.json()["error"] == "Maps are of one image at a time, not of 2."


def test_what_is_no_image_is_refused(client: Client) -> None:
    for query in ({}, {"class": "dog"}):
        answer = client.post(PATH, params=query, content=b"no image", headers=PNG)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_image")


def test_a_bundle_without_maps_is_answered_with_404(settings: Settings, pngs: list[bytes]) -> None:
    with running(settings) as client:
        answer = client.post(PATH, content=pngs[0], headers=PNG)
    assert answer.status_code == 404
    assert answer.json()["error"] == "This model's bundle offers no maps."


def test_the_maps_graph_is_read_at_the_first_request(
    client: Client, mapped: Path, pngs: list[bytes]
) -> None:
    """The file is verified then: a changed one is refused, and the model still classifies."""
    whole = (mapped / "maps.onnx").read_bytes()
    (mapped / "maps.onnx").write_bytes(whole[:-1] + b"?")
    assert client.post("/v1/classify", content=pngs[0], headers=PNG).status_code == 200
    answer = client.post(PATH, content=pngs[0], headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (409, "bad_bundle")
    (mapped / "maps.onnx").write_bytes(whole)
    assert client.post(PATH, content=pngs[0], headers=PNG).status_code == 200
    # Once open, the file is needed no longer.
    (mapped / "maps.onnx").unlink()
    assert client.post(PATH, content=pngs[0], headers=PNG).status_code == 200


def test_one_is_drawn_at_a_time_and_few_wait() -> None:
    queue, go, drawn = CamQueue(), threading.Event(), []

    def draw() -> str:
        go.wait(20)
        drawn.append(threading.current_thread().name)
        return "drawn"

    async def ask() -> list[str]:
        waiting = [asyncio.create_task(queue.take(draw)) for _ in range(MAX_CAM_REQUESTS)]
        await asyncio.sleep(0)
        with pytest.raises(OverCapacityError):
            await queue.take(draw)
        # A cancelled request makes room for another, unless its maps are being drawn.
        waiting.pop().cancel()
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(queue.take(draw)))
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(ask()) == ["drawn"] * MAX_CAM_REQUESTS
    assert len(set(drawn)) == 1
    queue.close()


def test_too_many_requests_are_refused_with_retry_after(client: Client, pngs: list[bytes]) -> None:
    queue, go = service_of(client).cam_queue, threading.Event()

    async def fill() -> list[asyncio.Task[bool]]:
        tasks = [
            asyncio.create_task(queue.take(lambda: go.wait(20))) for _ in range(MAX_CAM_REQUESTS)
        ]
        await asyncio.sleep(0)
        return tasks

    tasks = client.runner.run(fill())
    answer = client.post(PATH, params={"class": "dog"}, content=pngs[0], headers=PNG)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    # Classification is not affected.
    assert client.post("/v1/classify", content=pngs[0], headers=PNG).status_code == 200
    go.set()
    client.runner.run(asyncio.wait(tasks))
    assert client.post(PATH, content=pngs[0], headers=PNG).status_code == 200


def test_an_image_of_another_size_is_resized_to_the_input(client: Client) -> None:
    photo = encode(Image.new("RGB", (3 * SIZE, 2 * SIZE), "orange"))
    assert client.post(PATH, content=photo, headers=PNG).status_code == 200
