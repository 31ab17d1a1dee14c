"""A cascade of ONNX classifiers, served by the real server."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from exports.tuning.requests.recorded import record_files, whole_lines
from tests.exports.imported.by_hand import large_logits, small_logits
from tests.exports.imported.classifiers import CLASSES, coloured_images
from tests.exports.imported.conftest import OTHER_ORDER, Given, Made
from tests.servers import SERVE, Server, started

LABELS = OTHER_ORDER[1:]
IMAGES = coloured_images(3, seed=5)
TRUE = [CLASSES[number // 3] for number in range(len(IMAGES))]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "records"


@pytest.fixture(scope="module")
def server(made: Made, records: Path) -> Iterator[Server]:
    settings = {"record": records, "record_full_share": 0.0, "workers": 1}
    with started([*SERVE, str(made.bundle.path)], records.parent, settings) as running:
        yield running


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def ask(server: Server, query: str) -> list[dict[str, object]]:
    """The prediction for each of IMAGES, in its own request."""
    headers = {"Content-Type": "image/png"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        answers = [client.post(f"/v1/classify{query}", content=png(pixels)) for pixels in IMAGES]
    assert [answer.status_code for answer in answers] == [200] * len(IMAGES)
    return [answer.json()["predictions"][0] for answer in answers]


def test_served_logits_are_those_of_the_original_files(
    given: Given, server: Server, records: Path
) -> None:
    predictions = ask(server, "?mode=ensemble")
    assert [prediction["label"] for prediction in predictions] == TRUE
    deadline = time.monotonic() + 20
    lines: list[dict[str, object]] = []
    while len(lines) < len(IMAGES):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        lines = [orjson.loads(line) for f in record_files(records) for _, line in whole_lines(f)]
    served = np.array([line["logits"] for line in lines])
    order = [CLASSES.index(label) for label in LABELS]
    expected = np.stack(
        [small_logits(given, IMAGES)[:, order], large_logits(given, IMAGES)], axis=1
    )
    np.testing.assert_allclose(served, expected, atol=2e-3)


def test_easy_images_leave_after_the_small_network(server: Server) -> None:
    predictions = ask(server, "")
    assert [prediction["label"] for prediction in predictions] == TRUE
    assert sum(prediction["exit"] == 1 for prediction in predictions) > len(IMAGES) / 2


def test_the_page_the_metrics_and_the_model_work(server: Server, made: Made) -> None:
    name = made.bundle.manifest.name
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/").status_code == 200
        assert f'model="{name}"' in client.get("/metrics").text
        assert client.get(f"/v1/models/{name}").json()["labels"] == list(LABELS)
        tradeoff = client.get(f"/v1/models/{name}/tradeoff").json()
        assert tradeoff["exit_accuracy"][-1] > 95
        stream = client.post(
            "/v1/classify/stream?run_all_exits=true",
            content=png(IMAGES[0]),
            headers={"Content-Type": "image/png"},
        )
        assert stream.text.count("event: exit") == 2
