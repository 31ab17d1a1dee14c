"""An image whose confidence is below `reject_below` has no label, in every form of answer."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from serving.api.app import create_app
from serving.inference.engine import Prediction
from serving.settings import Settings
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.conftest import Client, lifespan_of
from tests.serving.requests import CLASSIFY, as_json, as_raw, metrics
from tests.serving.tiny_bundle import EXITS, LABELS

POLICY = "/v1/models/tiny/policy"


def predictions(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def test_only_the_label_and_the_reason_change(client: Client, pngs: list[bytes]) -> None:
    sent = as_json(pngs[::5])
    plain = predictions(client.post(CLASSIFY, **sent))
    least = float(np.median([p["confidence"] for p in plain]))
    rejecting = predictions(client.post(f"{CLASSIFY}?reject_below={least}", **sent))
    for before, after in zip(plain, rejecting, strict=True):
        if before["confidence"] < least - 1e-6:
            assert after == {**before, "label": None, "index": None, "reason": "unsure"}
        elif before["confidence"] > least + 1e-6:
            assert after == before
    assert {p["label"] is None for p in rejecting} == {True, False}


@pytest.mark.parametrize("least", ["-0.1", "1.1", "nan", "x"])
def test_a_probability_that_is_none_is_refused(
    client: Client, pngs: list[bytes], least: str
) -> None:
    refused = client.post(f"{CLASSIFY}?reject_below={least}", **as_raw(pngs[0]))
    assert refused.status_code == 400
    assert "reject_below" in refused.json()["error"]


def test_a_policy_may_reject_and_a_request_may_insist_on_a_label(
    client: Client, pngs: list[bytes]
) -> None:
    policy = client.get(POLICY).json()["policy"]
    assert policy["reject_below"] is None
    changed = client.put(POLICY, json={**policy, "reject_below": 1.0}).json()
    assert changed["policy"]["reject_below"] == 1.0
    (unsure,) = predictions(client.post(CLASSIFY, **as_raw(pngs[0])))
    assert (unsure["label"], unsure["reason"]) == (None, "unsure")
    assert len(unsure["top_k"]) == 5
    (labelled,) = predictions(client.post(f"{CLASSIFY}?reject_below=0", **as_raw(pngs[0])))
    assert labelled["label"] == unsure["top_k"][0]["label"]
    refused = client.put(POLICY, json={**policy, "reject_below": 2})
    assert refused.status_code == 400
    assert "reject_below" in refused.json()["error"]


def test_a_stream_is_unsure_at_every_exit_that_is(client: Client, pngs: list[bytes]) -> None:
    url = f"{CLASSIFY}/stream?reject_below=1&threshold=2"
    events = [
        json.loads(line.removeprefix("data: "))
        for line in client.post(url, **as_raw(pngs[3])).text.splitlines()
        if line.startswith("data: ")
    ]
    *exits, answer, _ = events
    assert [(event["exit"], event["label"], event["index"]) for event in exits] == [
        (k, None, None) for k in range(1, EXITS + 1)
    ]
    assert answer["predictions"][0]["reason"] == "unsure"


def test_the_protocol_has_an_empty_label_and_the_reason(
    client: Client, pngs: list[bytes], expected: list[Prediction]
) -> None:
    body = request_of(pngs[:2], parameters={"reject_below": 1.0})
    outputs = {o["name"]: o["data"] for o in client.post(INFER, json=body).json()["outputs"]}
    assert (outputs["label"], outputs["reason"]) == (["", ""], ["unsure", "unsure"])
    assert outputs["exit"] == [p.exit for p in expected[:2]]
    plain = client.post(INFER, json=request_of(pngs[:1])).json()
    assert plain["parameters"]["reason"] == expected[0].reason
    assert plain["outputs"][1]["data"] == [LABELS[expected[0].index]]
    refused = client.post(INFER, json=request_of(pngs[:1], parameters={"reject_below": 1.5}))
    assert refused.status_code == 400


def test_images_without_a_label_are_counted_by_exit(client: Client, pngs: list[bytes]) -> None:
    client.post(f"{CLASSIFY}?threshold=0&reject_below=1", **as_json(pngs[:3]))
    client.post(f"{CLASSIFY}?threshold=0", **as_json(pngs[:3]))
    shown = metrics(client)
    assert 'offramp_unsure_total{exit="1",model="tiny"} 3.0' in shown
    assert 'offramp_exits_total{exit="1",model="tiny"} 6.0' in shown
    assert 'offramp_requests_total{model="tiny",outcome="ok"} 2.0' in shown


def test_the_access_log_counts_them_too(settings: Settings, pngs: list[bytes]) -> None:
    stream = io.BytesIO()
    app = create_app(settings.model_copy(update={"access_log": True}), access=stream)
    with lifespan_of(app) as client:
        client.post(f"{CLASSIFY}?reject_below=1", **as_json(pngs[:3]))
        client.post(CLASSIFY, **as_json(pngs[:3]))
    rejecting, plain = (json.loads(line) for line in stream.getvalue().splitlines())
    assert rejecting["unsure"] == 3
    assert "unsure" not in plain
