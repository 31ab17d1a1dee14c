"""Wrong inference requests are refused with one sentence."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.serving.api.v2.helpers import (
    HEADER,
    INFER,
    assert_error,
    binary_head,
    infer_binary,
    request_of,
)
from tests.serving.server_command import MAX_BODY_BYTES
from tests.serving.tiny_bundle import SIZE

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
        ({"shape": [1, 2]}, "[N]"),
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
def test_an_invalid_header_length_is_refused(
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
def test_wrong_sizes_are_refused(http: httpx.Client, size: int, tail: bytes) -> None:
    head = binary_head([1], parameters={"binary_data_size": size})
    assert_error(infer_binary(http, head, tail), 400)


def test_the_json_may_not_end_before_or_after_the_header_says(
    http: httpx.Client, pngs: list[bytes]
) -> None:
    content = json.dumps(request_of(pngs[:1])).encode()
    for length in (len(content) - 1, len(content) // 2):
        assert_error(infer_binary(http, content, b"", length), 400, "JSON")
    assert_error(infer_binary(http, content, b"xy", len(content) + 1), 400, "JSON")


def test_a_large_body_or_an_unknown_encoding_is_refused(
    http: httpx.Client, pngs: list[bytes]
) -> None:
    large = b"\0" * (MAX_BODY_BYTES + 1)
    assert_error(http.post(INFER, content=large), 413)
    packed = http.post(INFER, content=b"{}", headers={"Content-Encoding": "br"})
    assert_error(packed, 415, "gzip, deflate or identity")


def test_json_of_too_many_values_is_refused_unread(http: httpx.Client) -> None:
    assert_error(http.post(INFER, content=b"[" + b"0," * 249_999 + b"0]"), 400, "250000 values")


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_not_supported(http: httpx.Client, pngs: list[bytes], where: str) -> None:
    body = request_of(pngs[:1], outputs=[{"name": "exit"}])
    body[where][0]["parameters"] = {"shared_memory_region": "a"}
    assert_error(http.post(INFER, json=body), 501, "shared_memory_region")
