"""The protocol point by point, as raw HTTP against the real server."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.api.v2.tensors import join_bytes, split_bytes
from serving.inference.engine import Prediction
from tests.serving.conftest import Client
from tests.serving.server_command import API_KEY, MAX_BODY_BYTES
from tests.serving.tiny_bundle import LABELS, SIZE

INFER = "/v2/models/tiny/infer"
HEADER = "Inference-Header-Content-Length"


def assert_error(answer: httpx.Response, status: int, says: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert says in body["error"], body
    assert body["error"].endswith(".")


def request_of(files: list[bytes], **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(file).decode() for file in files]
    tensor = {"name": "image", "shape": [len(files)], "datatype": "BYTES", "data": data}
    return {"inputs": [tensor], **more}


def infer_binary(
    http: httpx.Client, head: dict[str, Any] | bytes, tail: bytes, length: object = None
) -> httpx.Response:
    content = head if isinstance(head, bytes) else json.dumps(head).encode()
    headers = {HEADER: str(len(content) if length is None else length)}
    return http.post(INFER, content=content + tail, headers=headers)


def binary_head(shape: list[Any], datatype: str = "BYTES", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": shape, "datatype": datatype, **more}]}


# Addresses


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/1/ready", {"name": "tiny", "ready": True}),
    ],
)
def test_health_is_json(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.json() == body


def test_server_metadata_stand_at_both_addresses(http: httpx.Client) -> None:
    bare, slashed = http.get("/v2"), http.get("/v2/")
    assert bare.status_code == slashed.status_code == 200
    assert bare.json() == slashed.json()
    assert list(bare.json()) == ["name", "version", "extensions"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/tiny/versions/2",
        "/v2/models/tiny/versions/2/ready",
        "/v2/models/..%2f..%2fetc/ready",
        "/v2/nowhere",
    ],
)
def test_what_is_not_there_is_a_404_in_the_protocols_form(http: httpx.Client, path: str) -> None:
    assert_error(http.get(path), 404)


def test_inference_needs_a_model_that_is_there(http: httpx.Client, pngs: list[bytes]) -> None:
    body = request_of(pngs[:1])
    assert_error(http.post("/v2/models/other/infer", json=body), 404)
    assert_error(http.post("/v2/models/tiny/versions/2/infer", json=body), 404, "version 1")
    assert http.post("/v2/models/tiny/versions/1/infer", json=body).status_code == 200
    assert_error(http.get(INFER), 405)


def test_a_starting_or_leaving_server_is_not_ready(client: Client) -> None:
    service = client.app.state.service
    service.drain()
    assert_error(client.get("/v2/health/ready"), 503, "shutting down")
    service.phase = "starting"
    assert_error(client.get("/v2/health/ready"), 503, "not loaded")
    assert client.get("/v2/health/live").status_code == 200


# Inference


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
    assert names == ["probabilities", "label", "exit", "confidence"]
    probabilities, label, exit_, confidence = body["outputs"]
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [2, len(LABELS)])
    assert len(probabilities["data"]) == 2 * len(LABELS)
    assert (label["datatype"], label["shape"]) == ("BYTES", [2])
    assert label["data"] == [LABELS[p.index] for p in expected[:2]]
    assert (exit_["datatype"], exit_["data"]) == ("INT32", [p.exit for p in expected[:2]])
    assert confidence["data"] == pytest.approx([p.confidence for p in expected[:2]], abs=1e-6)


def test_without_an_id_none_comes_back(http: httpx.Client, pngs: list[bytes]) -> None:
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
def test_an_outputs_own_wish_for_binary_data_wins(
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


PIXELS = [1, SIZE, SIZE, 3]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "picture"}, "'image'"),
        ({"name": 5}, "inputs.0.name"),
        ({"datatype": "FP16"}, "FP16"),
        ({"datatype": "FP32", "shape": PIXELS}, "FP32"),
        ({"datatype": "uint8", "shape": PIXELS}, "uint8"),
        ({"shape": []}, "not 'BYTES' of []"),
        ({"shape": [0]}, "1 to 8"),
        ({"shape": [-1]}, "shape"),
        ({"shape": [1.0]}, "shape"),
        ({"shape": [True]}, "shape"),
        ({"shape": ["1"]}, "shape"),
        ({"shape": [2**63]}, "shape"),
        ({"shape": [10**30]}, "shape"),
        ({"shape": [1] * 17}, "shape"),
        ({"shape": [1, 1]}, "[N]"),
        ({"shape": [2]}, "[2]"),
        ({"shape": [9]}, "1 to 8"),
        ({"shape": [2**62, SIZE, SIZE, 3], "datatype": "UINT8"}, "1 to 8"),
        ({"shape": [1, SIZE, SIZE, 4], "datatype": "UINT8"}, "[N, 8, 8, 3]"),
        ({"shape": [1, 3, SIZE, SIZE], "datatype": "UINT8"}, "[N, 8, 8, 3]"),
        ({"data": None}, "lacks data"),
        ({"data": "aGk="}, "shape"),
        ({"data": [1]}, "Image 1"),
        ({"data": ["?"]}, "base64"),
        ({"data": ["aGk="]}, "JPEG"),
        ({"data": [["aGk="]]}, "Image 1"),
        ({"parameters": {"binary_data_size": 4}}, "after it"),
        ({"parameters": {"binary_data_size": -1}}, "binary_data_size"),
        ({"parameters": {"binary_data_size": 4}, "data": None}, HEADER),
        ({"parameters": []}, "parameters"),
    ],
)
def test_a_wrong_input_is_refused_in_a_sentence(
    http: httpx.Client, pngs: list[bytes], change: dict[str, Any], says: str
) -> None:
    body = request_of(pngs[:1])
    body["inputs"][0].update(change)
    assert_error(http.post(INFER, json=body), 400, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": []}, "one input"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [{}] * 17}, "inputs"),
        ({"id": 5}, "id"),
        ({"outputs": [{"name": "logits"}]}, "'logits'"),
        ({"outputs": [{"name": "exit"}, {"name": "exit"}]}, "twice"),
        ({"outputs": ["exit"]}, "outputs.0"),
        ({"outputs": [{"name": "exit", "parameters": {"classification": 1}}]}, "probabilities"),
        ({"outputs": [{"name": "exit", "parameters": {"binary_data": 1}}]}, "binary_data"),
        ({"parameters": {"threshold": -1}}, "threshold"),
        ({"parameters": {"threshold": "0.5"}}, "threshold"),
        ({"parameters": {"max_exit": 4}}, "between 1 and 3"),
        ({"parameters": {"max_exit": 0}}, "max_exit"),
        ({"parameters": {"mode": "guess"}}, "mode"),
        ({"parameters": {"timeout": -1}}, "timeout"),
        ({"parameters": {"timeout": 1.5}}, "timeout"),
        ({"parameters": {"priority": True}}, "priority"),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
        ({"parameters": {"treshold": 1}}, "'treshold'"),
        ({"parameters": 1}, "parameters"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(
    http: httpx.Client, pngs: list[bytes], change: dict[str, Any], says: str
) -> None:
    assert_error(http.post(INFER, json=request_of(pngs[:1], **change)), 400, says)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'{"inputs": NaN}',
        b"\xff",
        b"[" * 5000,
        b"{}",
        b'{"a":1e999}',
    ],
)
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, content: bytes) -> None:
    assert_error(http.post(INFER, content=content), 400)


@pytest.mark.parametrize(
    "length", ["-1", "x", "1e3", "٣", "99999999999999999999", "", "+5", "9999"]
)
def test_a_header_length_that_cannot_be_is_refused(
    http: httpx.Client, pngs: list[bytes], length: str
) -> None:
    content = json.dumps(request_of(pngs[:1])).encode()
    answer = http.post(INFER, content=content, headers=[(HEADER.encode(), length.encode())])
    assert_error(answer, 400, HEADER)


@pytest.mark.parametrize(
    ("size", "tail"),
    [
        (0, b"\4\0\0\0abcd"),
        (7, b"\4\0\0\0abcd"),
        (2**62, b"\4\0\0\0abcd"),
        (8, b""),
        (8, b"\5\0\0\0abcd"),
        (8, b"\3\0\0\0abcd"),
        (8, b"\xff\xff\xff\xffabcd"),
        (3, b"\0\0\0"),
    ],
)
def test_sizes_that_lie_are_refused(http: httpx.Client, size: int, tail: bytes) -> None:
    head = binary_head([1], parameters={"binary_data_size": size})
    assert_error(infer_binary(http, head, tail), 400)


def test_the_json_may_not_end_before_or_after_the_header_says(
    http: httpx.Client, pngs: list[bytes]
) -> None:
    content = json.dumps(request_of(pngs[:1])).encode()
    for length in (len(content) - 1, len(content) // 2):
        assert_error(infer_binary(http, content, b"", length), 400, "JSON")
    assert_error(infer_binary(http, content, b"xy", len(content) + 1), 400, "JSON")


def test_a_large_or_compressed_body_is_refused(http: httpx.Client, pngs: list[bytes]) -> None:
    large = b"\0" * (MAX_BODY_BYTES + 1)
    assert_error(http.post(INFER, content=large), 413)
    packed = http.post(INFER, content=b"{}", headers={"Content-Encoding": "gzip"})
    assert_error(packed, 415)


def test_json_of_too_many_values_is_refused_unread(http: httpx.Client) -> None:
    assert_error(http.post(INFER, content=b"[" + b"0," * 249_999 + b"0]"), 400, "250000 values")


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_said_not_to_be_supported(
    http: httpx.Client, pngs: list[bytes], where: str
) -> None:
    body = request_of(pngs[:1], outputs=[{"name": "exit"}])
    body[where][0]["parameters"] = {"shared_memory_region": "a"}
    assert_error(http.post(INFER, json=body), 501, "shared_memory_region")


# Repository


def test_the_index_takes_an_empty_body_or_a_wish(http: httpx.Client) -> None:
    for options in ({}, {"json": {}}, {"json": {"ready": True}}):
        answer = http.post("/v2/repository/index", **options)
        assert answer.status_code == 200
        assert [entry["name"] for entry in answer.json()] == ["tiny"]
    for wrong in (b"[]", b'{"ready": 1}', b"x"):
        assert_error(http.post("/v2/repository/index", content=wrong), 400)


ADMIN = {"X-API-Key": API_KEY}
REPOSITORY = "/v2/repository/models"


def test_loading_and_unloading_need_the_key(http: httpx.Client) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
        for verb in ("load", "unload"):
            assert_error(http.post(f"{REPOSITORY}/tiny/{verb}", headers=headers), 401, "key")
    assert http.get("/v2/models/tiny/ready").status_code == 200


def test_a_model_is_unloaded_and_loaded_again(http: httpx.Client) -> None:
    assert http.post(f"{REPOSITORY}/tiny/unload", headers=ADMIN).status_code == 200
    assert_error(http.get("/v2/models/tiny/ready"), 503)
    (entry,) = http.post("/v2/repository/index").json()
    assert (entry["name"], entry["state"]) == ("tiny", "UNAVAILABLE")
    assert http.post("/v2/repository/index", json={"ready": True}).json() == []
    assert_error(http.post(f"{REPOSITORY}/tiny/unload", headers=ADMIN), 404)
    assert http.post(f"{REPOSITORY}/tiny/load", json={}, headers=ADMIN).status_code == 200
    assert http.get("/v2/models/tiny/ready").status_code == 200
    (entry,) = http.post("/v2/repository/index").json()
    assert (entry["name"], entry["version"], entry["state"]) == ("tiny", "1", "READY")


def test_what_is_loaded_never_comes_from_a_client(http: httpx.Client) -> None:
    for name in ("other", "..%2ftiny", "%2fetc%2fpasswd"):
        assert_error(http.post(f"{REPOSITORY}/{name}/load", headers=ADMIN), 404)
    for wrong in ({"file:1/model.onnx": "AA=="}, {"config": "{}"}):
        answer = http.post(f"{REPOSITORY}/tiny/load", json={"parameters": wrong}, headers=ADMIN)
        assert_error(answer, 501, "parameters")
    wrong = {"parameters": {"path": "/etc"}}
    assert_error(http.post(f"{REPOSITORY}/tiny/unload", json=wrong, headers=ADMIN), 400, "path")


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
