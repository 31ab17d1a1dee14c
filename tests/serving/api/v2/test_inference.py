"""Inference point by point, as raw HTTP against the real server."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.api.v2.tensors import join_bytes, split_bytes
from serving.inference.engine import Prediction
from tests.serving.api.v2.helpers import (
    HEADER,
    INFER,
    assert_error,
    binary_head,
    infer_binary,
    request_of,
)
from tests.serving.conftest import Client
from tests.serving.tiny_bundle import LABELS, SIZE


def test_a_json_request_has_the_protocols_answer(
    http: httpx.Client, pngs: list[bytes], expected: list[Prediction]
) -> None:
    answer = http.post(INFER, json=request_of(pngs[:2], id="42"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert HEADER not in answer.headers
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "1", "42")
    names = [output["name"] for output in body["outputs"]]
    assert names == ["probabilities", "label", "exit", "confidence", "measured", "reason"]
    probabilities, label, exit_, confidence, measured, reason = body["outputs"]
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [2, len(LABELS)])
    assert len(probabilities["data"]) == 2 * len(LABELS)
    assert (label["datatype"], label["shape"]) == ("BYTES", [2])
    assert label["data"] == [LABELS[p.index] for p in expected[:2]]
    assert (exit_["datatype"], exit_["data"]) == ("INT32", [p.exit for p in expected[:2]])
    assert confidence["data"] == pytest.approx([p.confidence for p in expected[:2]], abs=1e-6)
    assert measured["data"] == pytest.approx([p.measured for p in expected[:2]], abs=1e-6)
    assert reason["data"] == [p.reason for p in expected[:2]]
    assert body["parameters"] == {"measure": "max_prob"}


def test_without_an_id_none_is_returned(http: httpx.Client, pngs: list[bytes]) -> None:
    assert "id" not in http.post(INFER, json=request_of(pngs[:1])).json()
    assert http.post(INFER, json=request_of(pngs[:1], id="")).json()["id"] == ""


def test_a_binary_answer_follows_its_json(
    http: httpx.Client, pngs: list[bytes], expected: list[Prediction]
) -> None:
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("label", "exit")]
    answer = http.post(INFER, json=request_of(pngs[:2], outputs=wanted))
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[HEADER])
    label, exit_ = json.loads(answer.content[:length])["outputs"]
    assert "data" not in label
    size = label["parameters"]["binary_data_size"]
    labels, exits = answer.content[length:][:size], answer.content[length:][size:]
    assert split_bytes(labels, 2) == [LABELS[p.index].encode() for p in expected[:2]]
    assert exit_["parameters"]["binary_data_size"] == len(exits) == 8
    assert list(struct.unpack("<2i", exits)) == [p.exit for p in expected[:2]]


@pytest.mark.parametrize("own", [True, False, None])
@pytest.mark.parametrize("whole", [True, False, None])
def test_an_outputs_own_binary_data_parameter_has_priority(
    http: httpx.Client, pngs: list[bytes], own: bool | None, whole: bool | None
) -> None:
    output: dict[str, Any] = {"name": "exit"}
    if own is not None:
        output["parameters"] = {"binary_data": own}
    body = request_of(pngs[:1], outputs=[output])
    if whole is not None:
        body["parameters"] = {"binary_data_output": whole}
    answer = http.post(INFER, json=body)
    assert answer.status_code == 200
    assert (HEADER in answer.headers) is (bool(whole) if own is None else own)


def test_a_header_of_zero_makes_the_body_one_image(
    http: httpx.Client, pngs: list[bytes], expected: list[Prediction]
) -> None:
    answer = infer_binary(http, b"", pngs[3], length=0)
    assert answer.status_code == 200
    head = json.loads(answer.content[: int(answer.headers[HEADER])])
    assert head["parameters"]["exit"] == expected[3].exit
    assert all("binary_data_size" in output["parameters"] for output in head["outputs"])
    assert_error(infer_binary(http, b"", b"", length=0), 400, "empty")


def test_without_a_size_all_that_follows_the_json_is_the_input(
    http: httpx.Client, pngs: list[bytes], images: NDArray[np.uint8], expected: list[Prediction]
) -> None:
    for head, tail in (
        (binary_head([2]), join_bytes(pngs[:2])),
        (binary_head([2, SIZE, SIZE, 3], "UINT8"), images[:2].tobytes()),
    ):
        answer = infer_binary(http, head, tail)
        assert answer.json()["outputs"][2]["data"] == [p.exit for p in expected[:2]]


def test_pixels_may_be_flat_or_nested_in_json(
    http: httpx.Client, images: NDArray[np.uint8], expected: list[Prediction]
) -> None:
    for data in (images[:2].tolist(), images[:2].ravel().tolist()):
        head = binary_head([2, SIZE, SIZE, 3], "UINT8", data=data)
        answer = http.post(INFER, json=head)
        assert answer.json()["outputs"][2]["data"] == [p.exit for p in expected[:2]]


def test_keys_that_the_protocol_does_not_know_are_ignored(
    http: httpx.Client, pngs: list[bytes]
) -> None:
    body = request_of(pngs[:1], model_name="tiny", colour="red")
    body["inputs"][0]["parameters"] = {"content_type": "base64"}
    assert http.post(INFER, json=body).status_code == 200


def test_metrics_count_inference_as_classification(client: Client, pngs: list[bytes]) -> None:
    assert client.post(INFER, json=request_of(pngs[:3])).status_code == 200
    assert client.post(INFER, json=request_of([b"text"])).status_code == 400
    assert client.post("/v2/models/x/infer", json={}).status_code == 404
    text = client.get("/metrics").text
    for line in (
        'offramp_requests_total{model="tiny",outcome="ok"} 1.0',
        'offramp_requests_total{model="tiny",outcome="invalid_image"} 1.0',
        'offramp_requests_total{model="",outcome="not_found"} 1.0',
    ):
        assert line in text
