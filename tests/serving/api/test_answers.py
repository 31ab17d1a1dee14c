"""Answers of POST /v1/classify."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from serving.inference.engine import Engine
from serving.settings import Settings
from tests.serving.conftest import Client, encode, running
from tests.serving.requests import (
    CLASSIFY,
    as_json,
    as_multipart,
    as_raw,
)
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle


def test_an_answer_has_the_documented_form(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(CLASSIFY, **as_raw(pngs[0]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["model", "version", "predictions", "timing_ms"]
    assert (body["model"], body["version"]) == ("tiny", "1")
    (prediction,) = body["predictions"]
    assert list(prediction) == [
        *("label", "index", "confidence", "exit", "exits", "reason", "measure", "top_k")
    ]
    assert prediction["label"] == LABELS[prediction["index"]]
    assert prediction["exits"] == EXITS
    assert prediction["reason"] in ("confident", "max_exit")
    assert len(prediction["top_k"]) == 5
    best = prediction["top_k"][0]
    assert (best["label"], best["index"]) == (prediction["label"], prediction["index"])
    assert best["probability"] == prediction["confidence"]
    assert prediction["measure"] == {"name": "max_prob", "value": prediction["confidence"]}
    chances = [candidate["probability"] for candidate in prediction["top_k"]]
    assert chances == sorted(chances, reverse=True)
    timing = body["timing_ms"]
    assert list(timing) == ["decode", "queue", "compute", "total"]
    parts = timing["decode"] + timing["queue"] + timing["compute"]
    assert 0 < parts <= timing["total"] + 0.01
    named = [part.split(";dur=") for part in answer.headers["Server-Timing"].split(", ")]
    assert {name: float(value) for name, value in named} == timing


def test_three_body_forms_give_the_engines_answer(
    client: Client, engine: Engine, pngs: list[bytes], images: Any
) -> None:
    policy = client.app.state.service.models.get(None).policy
    expected = [(p.index, p.exit) for p in engine.classify(images[::8], policy)]
    files = pngs[::8]
    raw = [client.post(CLASSIFY, **as_raw(file)).json()["predictions"][0] for file in files]
    for predictions in (
        raw,
        client.post(CLASSIFY, **as_multipart(files)).json()["predictions"],
        client.post(CLASSIFY, **as_json(files)).json()["predictions"],
    ):
        assert [(p["index"], p["exit"]) for p in predictions] == expected


@pytest.mark.parametrize(
    ("query", "exit_"),
    [
        ("threshold=0", 1),
        ("threshold=1.5", 3),
        ("threshold=1.5&max_exit=2", 2),
        ("mode=ensemble", 3),
        ("mode=exit&max_exit=1", 1),
    ],
)
def test_a_request_may_change_the_policy_for_itself(
    client: Client, pngs: list[bytes], query: str, exit_: int
) -> None:
    answer = client.post(f"{CLASSIFY}?{query}", **as_json(pngs[:4])).json()
    assert {p["exit"] for p in answer["predictions"]} == {exit_}


@pytest.mark.parametrize("top_k", [1, 3, len(LABELS)])
def test_top_k_says_how_many_classes_are_listed(
    client: Client, pngs: list[bytes], top_k: int
) -> None:
    answer = client.post(f"{CLASSIFY}?top_k={top_k}", **as_raw(pngs[0])).json()
    assert len(answer["predictions"][0]["top_k"]) == top_k


def test_the_first_model_answers_unless_one_is_named(
    tmp_path: Any, bundle_path: Any, pngs: list[bytes]
) -> None:
    other = write_tiny_bundle(tmp_path / "other", name="other")
    with running(Settings(bundles=(bundle_path, other), workers=1)) as client:
        assert client.post(CLASSIFY, **as_raw(pngs[0])).json()["model"] == "tiny"
        named = client.post(f"{CLASSIFY}?model=other", **as_raw(pngs[0])).json()
        assert named["model"] == "other"
        listed = client.get("/v1/models").json()["models"]
        assert [model["name"] for model in listed] == ["tiny", "other"]


def test_a_photo_is_resized_to_the_input(client: Client) -> None:
    photo = encode(Image.new("RGB", (300, 200), "orange"), "JPEG")
    answer = client.post(CLASSIFY, content=photo, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200
