"""A bundle of format 2 over a real socket: every route answers from the stages' logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from exports.bundle.policy import Floats, softmax
from exports.bundle.reader import Bundle, load_bundle
from exports.stage_runner import StageRunner
from serving.settings import Settings
from tests.commands import call
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.live import live
from tests.serving.requests import CLASSIFY, as_json, as_raw
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("cascade") / "tiny"
    return load_bundle(write_tiny_bundle(path, image_stages=(1, 3), maps=True))


@pytest.fixture(scope="module")
def probabilities(cascade: Bundle, images: Images) -> Floats:
    """Calibrated probabilities [K, N, C] of every exit alone."""
    logits = StageRunner(cascade.stages).logits(images)
    temperatures = np.float32([entry.temperature for entry in cascade.manifest.exits])
    return softmax(logits / temperatures[:, None, None])


@pytest.fixture(scope="module")
def http(cascade: Bundle) -> Iterator[httpx.Client]:
    settings = Settings(bundles=(cascade.path,), workers=2, max_images=8)
    with (
        live(settings) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        yield http


def check(answer: dict[str, Any], expected: Floats, exit_: int) -> None:
    """Assert that `answer` has all classes and the probabilities `expected` [C] of exit `exit_`."""
    assert answer["exit"] == exit_
    found = np.zeros(len(LABELS), np.float32)
    for candidate in answer["top_k"]:
        found[candidate["index"]] = candidate["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("exit_", range(1, EXITS + 1))
def test_every_exit_has_the_probabilities_of_its_logits(
    http: httpx.Client, pngs: list[bytes], probabilities: Floats, exit_: int
) -> None:
    query = f"?mode=exit&max_exit={exit_}&top_k={len(LABELS)}"
    for number in (0, 20, 39):
        (answer,) = http.post(CLASSIFY + query, **as_raw(pngs[number])).json()["predictions"]
        check(answer, probabilities[exit_ - 1, number], exit_)
    answers = http.post(CLASSIFY + query, **as_json(pngs[:8])).json()["predictions"]
    for number, answer in enumerate(answers):
        check(answer, probabilities[exit_ - 1, number], exit_)


def test_a_stream_of_all_exits_has_each_of_them(
    http: httpx.Client, pngs: list[bytes], probabilities: Floats
) -> None:
    query = f"?run_all_exits=true&threshold=0&top_k={len(LABELS)}"
    stream = http.post(f"{CLASSIFY}/stream{query}", **as_raw(pngs[5])).text
    events = [
        orjson.loads(lines.split("\ndata: ")[1])
        for lines in stream.split("\n\n")
        if lines.startswith("event: exit")
    ]
    assert [event["exit"] for event in events] == [1, 2, 3]
    for exit_, event in enumerate(events, 1):
        check(event, probabilities[exit_ - 1, 5], exit_)


def test_the_inference_protocol_takes_files_and_pixels(
    http: httpx.Client, pngs: list[bytes], images: Images, probabilities: Floats
) -> None:
    parameters = {"mode": "exit", "max_exit": 3}
    pixels = {
        "name": "image",
        "shape": list(images[:4].shape),
        "datatype": "UINT8",
        "data": images[:4].ravel().tolist(),
    }
    for body in ({"inputs": [pixels]}, request_of(pngs[:4])):
        outputs = http.post(INFER, json=body | {"parameters": parameters}).json()["outputs"]
        found = np.reshape(outputs[0]["data"], (4, len(LABELS)))
        np.testing.assert_allclose(found, probabilities[2, :4], atol=1e-4)


def test_maps_and_metadata_are_answered(http: httpx.Client, pngs: list[bytes]) -> None:
    maps = http.post(f"{CLASSIFY}/maps", **as_raw(pngs[0]))
    assert maps.status_code == 200
    assert [one["exit"] for one in maps.json()["exits"]] == [1, 2, 3]
    assert len(http.get("/v1/models/tiny").json()["exits"]) == EXITS
    assert http.get("/v2/models/tiny").status_code == 200
    metrics = http.get("/metrics").text
    assert f'offramp_stage_batch_size_sum{{model="tiny",stage="{EXITS}"}}' in metrics


def test_the_command_classify_answers_too(
    cascade: Bundle, tmp_path: Path, pngs: list[bytes], probabilities: Floats
) -> None:
    (tmp_path / "one.png").write_bytes(pngs[5])
    options = ("--mode", "exit", "--max-exit", 3, "--json", "--top-k", len(LABELS))
    done = call("classify", tmp_path / "one.png", "--bundle", cascade.path, *options)
    assert done.code == 0, done.err
    (answer,) = orjson.loads(done.out)["predictions"]
    check(answer, probabilities[2, 5], 3)
