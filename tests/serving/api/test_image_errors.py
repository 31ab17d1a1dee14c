"""A request of several images is answered image by image: a bad one has an error, the others are answered."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import orjson
import pytest

from serving.api.app import create_app
from serving.settings import Settings
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.conftest import Client, lifespan_of
from tests.serving.http.events import Events
from tests.serving.live import live
from tests.serving.requests import CLASSIFY, as_json, as_multipart, as_raw, metrics

BAD = [b"text", b""]


@pytest.mark.parametrize("form", [as_json, as_multipart])
def test_an_entry_is_what_the_image_alone_would_get(
    client: Client, pngs: list[bytes], form: Any
) -> None:
    files = [pngs[0], *BAD, pngs[20], pngs[1][:40]]
    answer = client.post(CLASSIFY, **form(files))
    assert answer.status_code == 200
    for file, entry in zip(files, answer.json()["predictions"], strict=True):
        alone = client.post(CLASSIFY, **as_raw(file)).json()
        if "error" in entry:
            assert entry == alone
        else:
            assert [entry] == alone["predictions"]


def test_bad_images_alone_are_errors_too(client: Client) -> None:
    answer = client.post(CLASSIFY, **as_json(BAD))
    assert answer.status_code == 200
    assert [entry["code"] for entry in answer.json()["predictions"]] == ["invalid_image"] * 2
    assert 'requests_total{model="tiny",outcome="invalid_image"} 1.0' in metrics(client)


def test_a_deadline_that_no_image_meets_fails_the_request(
    client: Client, pngs: list[bytes]
) -> None:
    answer = client.post(f"{CLASSIFY}?deadline_ms=0.001", **as_json(pngs[:2]))
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_images_with_errors_are_counted_and_logged(settings: Settings, pngs: list[bytes]) -> None:
    lines = io.BytesIO()
    app = create_app(settings.model_copy(update={"access_log": True}), access=lines)
    with lifespan_of(app) as client:
        client.post(CLASSIFY, **as_json([pngs[0], *BAD]))
        shown = metrics(client)
    assert 'image_errors_total{code="invalid_image",model="tiny"} 2.0' in shown
    assert 'requests_total{model="tiny",outcome="ok"} 1.0' in shown
    line = orjson.loads(lines.getvalue())
    assert (line["status"], len(line["exits"]), line["image_errors"]) == (200, 1, 2)


def test_a_tensor_has_no_place_for_an_error(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(INFER, json=request_of([pngs[0], b"text", pngs[1]]))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Image 2 of 3: The image is in an unknown format")


def test_a_stream_has_an_event_for_each_image_that_fails(
    settings: Settings, pngs: list[bytes]
) -> None:
    body = orjson.dumps(as_json([b"text", pngs[0]])["json"])

    async def scenario(port: int) -> None:
        events = await (await Events.of(port, body, "application/json")).all()
        (failed,) = (data for name, data in events if name == "error")
        assert (failed["image"], failed["code"]) == (0, "invalid_image")
        assert {data["image"] for name, data in events if name == "exit"} == {1}
        (answer,) = (data for name, data in events if name == "answer")
        error, prediction = answer["predictions"]
        assert error == {key: failed[key] for key in ("error", "code")}
        assert prediction["label"] is not None
        assert events[-1][0] == "done"

    with live(settings) as (port, _):
        asyncio.run(scenario(port))
