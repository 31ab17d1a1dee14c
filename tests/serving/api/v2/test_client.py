"""The server with NVIDIA's client of the protocol."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import (
    InferenceServerClient,
    InferenceServerException,
    InferInput,
    InferRequestedOutput,
)

from serving.inference.engine import Prediction
from tests.servers import Server
from tests.serving.server_command import API_KEY
from tests.serving.tiny_bundle import LABELS, SIZE

ADMIN = {"X-API-Key": API_KEY}
NAMES = ("probabilities", "label", "exit", "confidence", "measured", "reason")


@pytest.fixture(scope="module")
def triton(server: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("http://"), concurrency=8) as client:
        yield client


def files(contents: list[bytes], binary: bool = True) -> InferInput:
    tensor = InferInput("image", [len(contents)], "BYTES")
    if not binary:
        contents = [base64.b64encode(content) for content in contents]
    tensor.set_data_from_numpy(np.array(contents, dtype=object), binary_data=binary)
    return tensor


def pixels(images: NDArray[np.uint8], binary: bool = True) -> InferInput:
    tensor = InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return tensor


def wanted(binary: bool) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name, binary_data=binary) for name in NAMES]


def texts(tensor: NDArray[Any]) -> list[str]:
    """BYTES as text: the client gives them as bytes from binary data, as str from JSON."""
    return [item.decode() if isinstance(item, bytes) else item for item in tensor.ravel()]


def check(answer: Any, expected: list[Prediction]) -> None:
    probabilities = answer.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, [p.probabilities for p in expected], atol=1e-6)
    assert texts(answer.as_numpy("label")) == [LABELS[p.index] for p in expected]
    assert texts(answer.as_numpy("reason")) == [p.reason for p in expected]
    assert answer.as_numpy("exit").dtype == np.int32
    assert answer.as_numpy("exit").tolist() == [p.exit for p in expected]
    np.testing.assert_allclose(
        answer.as_numpy("confidence"), [p.confidence for p in expected], atol=1e-6
    )
    np.testing.assert_allclose(
        answer.as_numpy("measured"), [p.measured for p in expected], atol=1e-6
    )


def test_the_server_is_live_ready_and_known(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny")
    assert triton.is_model_ready("tiny", "1")
    assert not triton.is_model_ready("tiny", "2")
    assert not triton.is_model_ready("other")
    server = triton.get_server_metadata()
    assert server["name"] == "offramp"
    assert "binary_tensor_data" in server["extensions"]


def test_metadata_tell_all_that_a_request_needs(triton: InferenceServerClient) -> None:
    metadata = triton.get_model_metadata("tiny", "1")
    assert metadata == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, SIZE, SIZE, 3]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(LABELS)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "exit", "datatype": "INT32", "shape": [-1]},
            {"name": "confidence", "datatype": "FP32", "shape": [-1]},
            {"name": "measured", "datatype": "FP32", "shape": [-1]},
            {"name": "reason", "datatype": "BYTES", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("asked", ["default", "binary", "json"])
@pytest.mark.parametrize("sent", ["binary", "json"])
@pytest.mark.parametrize("form", ["files", "pixels"])
def test_every_form_of_tensors_gives_the_engines_answers(
    triton: InferenceServerClient,
    images: NDArray[np.uint8],
    pngs: list[bytes],
    expected: list[Prediction],
    form: str,
    sent: str,
    asked: str,
) -> None:
    binary = sent == "binary"
    tensor = files(pngs[::8], binary) if form == "files" else pixels(images[::8], binary)
    outputs = None if asked == "default" else wanted(asked == "binary")
    check(triton.infer("tiny", [tensor], outputs=outputs), expected[::8])


def test_one_output_may_be_binary_and_another_json(
    triton: InferenceServerClient, pngs: list[bytes], expected: list[Prediction]
) -> None:
    outputs = [
        InferRequestedOutput("label", binary_data=False),
        InferRequestedOutput("exit", binary_data=True),
    ]
    answer = triton.infer("tiny", [files(pngs[:2])], outputs=outputs)
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label", "exit"]
    assert answer.as_numpy("exit").tolist() == [p.exit for p in expected[:2]]
    assert texts(answer.as_numpy("label")) == [LABELS[p.index] for p in expected[:2]]


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_value_index_and_label(
    triton: InferenceServerClient, pngs: list[bytes], expected: list[Prediction], binary: bool
) -> None:
    output = InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    answer = triton.infer("tiny", [files(pngs[:2])], outputs=[output])
    found = answer.as_numpy("probabilities")
    assert found.shape == (2, 3)
    for row, prediction in zip(found, expected, strict=False):
        parts = [text.split(":") for text in texts(row)]
        best = np.argsort(-prediction.probabilities)[:3].tolist()
        assert [(int(index), label) for _, index, label in parts] == [(i, LABELS[i]) for i in best]
        np.testing.assert_allclose(
            [float(value) for value, _, _ in parts], prediction.probabilities[best], atol=1e-5
        )


def test_more_classes_than_there_are_gives_all(
    triton: InferenceServerClient, pngs: list[bytes]
) -> None:
    output = InferRequestedOutput("probabilities", class_count=50)
    answer = triton.infer("tiny", [files(pngs[:1])], outputs=[output])
    assert answer.as_numpy("probabilities").shape == (1, len(LABELS))


@pytest.mark.parametrize(
    ("parameters", "exit_"),
    [
        ({"threshold": 0.0}, 1),
        ({"threshold": 2}, 3),
        ({"threshold": 2.0, "max_exit": 2}, 2),
        ({"mode": "ensemble"}, 3),
        ({"mode": "exit", "max_exit": 1}, 1),
    ],
)
def test_parameters_change_the_policy_of_one_request(
    triton: InferenceServerClient, pngs: list[bytes], parameters: dict[str, Any], exit_: int
) -> None:
    answer = triton.infer("tiny", [files(pngs[:1])], parameters=parameters)
    assert answer.as_numpy("exit").tolist() == [exit_]
    parameters = answer.get_response()["parameters"]
    assert parameters["exit"] == exit_
    assert parameters["confidence"] == pytest.approx(answer.as_numpy("confidence")[0], abs=1e-6)


@pytest.mark.parametrize("priority", [0, 1, 2, 9])
def test_timeout_and_priority_are_accepted(
    triton: InferenceServerClient, pngs: list[bytes], priority: int
) -> None:
    answer = triton.infer("tiny", [files(pngs[:1])], priority=priority, timeout=20_000_000)
    assert answer.as_numpy("label").shape == (1,)


def test_a_timeout_before_the_first_exit_is_an_error(
    triton: InferenceServerClient, pngs: list[bytes]
) -> None:
    with pytest.raises(InferenceServerException) as error:
        triton.infer("tiny", [files(pngs[:1])], timeout=1)
    assert error.value.status() == "504"


def test_an_id_is_returned(triton: InferenceServerClient, pngs: list[bytes]) -> None:
    answer = triton.infer("tiny", [files(pngs[:1])], request_id="äß-42", model_version="1")
    assert answer.get_response()["id"] == "äß-42"
    assert answer.get_response()["model_version"] == "1"


def test_the_client_understands_every_error(
    triton: InferenceServerClient, pngs: list[bytes], images: NDArray[np.uint8]
) -> None:
    for attempt, status, says in (
        (lambda: triton.infer("other", [files(pngs[:1])]), "404", "no model"),
        (lambda: triton.infer("tiny", [files([b"text"])]), "400", "JPEG"),
        (lambda: triton.infer("tiny", [files(pngs[:9])]), "400", "1 to 8"),
        (lambda: triton.infer("tiny", [pixels(images[:1, :4])]), "400", "[N, 8, 8, 3]"),
        (lambda: triton.infer("tiny", [files(pngs[:1])], sequence_id=3), "501", "sequence_id"),
        (lambda: triton.load_model("tiny"), "401", "key"),
        (lambda: triton.load_model("tiny", headers=ADMIN, config="{}"), "501", "parameters"),
        (lambda: triton.infer("tiny", [], parameters={"treshold": 1}), "400", "treshold"),
    ):
        with pytest.raises(InferenceServerException) as error:
            attempt()
        assert error.value.status() == status
        assert says in error.value.message()


def test_the_repository_lists_what_is_loaded(triton: InferenceServerClient) -> None:
    index = triton.get_model_repository_index()
    assert {"name": "tiny", "version": "1", "state": "READY", "reason": ""} in index
    triton.load_model("tiny", headers=ADMIN)
    assert triton.is_model_ready("tiny")


def test_three_requests_at_once_get_three_answers(
    triton: InferenceServerClient, pngs: list[bytes], expected: list[Prediction]
) -> None:
    # A batching server once gave all three to the first and nothing to the others.
    groups = [(0, 1), (1, 4), (10, 17)] * 5
    asked = [triton.async_infer("tiny", [files(pngs[first:end])]) for first, end in groups]
    for (first, end), answer in zip(groups, asked, strict=True):
        check(answer.get_result(), expected[first:end])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_batch_is_answered_completely(
    triton: InferenceServerClient, pngs: list[bytes], expected: list[Prediction], count: int
) -> None:
    answer = triton.infer("tiny", [files(pngs[:count])])
    check(answer, expected[:count])
    parameters = answer.get_response()["parameters"]
    assert parameters["measure"] == "max_prob"
    assert ("exit" in parameters) is (count == 1)
