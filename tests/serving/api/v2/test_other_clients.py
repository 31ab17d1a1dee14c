"""What perf_analyzer, MLServer's codecs and KServe's client ask for.

perf_analyzer reads fields without checking that they are there. Bodies are as those clients write them.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient

from serving.inference.engine import Prediction
from serving.settings import Settings
from tests.servers import Server
from tests.serving.api.v2.helpers import HEADER, INFER, assert_error, request_of
from tests.serving.conftest import Client, running
from tests.serving.server_command import MAX_IMAGES
from tests.serving.tiny_bundle import LABELS, SIZE

DURATIONS = (
    *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"),
    *("cache_hit", "cache_miss"),
)


def stats_of(answer: Any) -> dict[str, Any]:
    (found,) = answer["model_stats"]
    assert isinstance(found, dict)
    return found


# perf_analyzer


def test_the_configuration_has_what_perf_analyzer_reads(server: Server) -> None:
    triton = InferenceServerClient(server.url.removeprefix("http://"))
    config = triton.get_model_config("tiny")
    assert config == triton.get_model_config("tiny", "1")
    assert config["max_batch_size"] == MAX_IMAGES
    assert "dynamic_batching" in config
    assert not {"sequence_batching", "ensemble_scheduling", "response_cache"} & set(config)
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert config["input"] == [
        {"name": "image", "data_type": "TYPE_UINT8", "dims": [SIZE, SIZE, 3]}
    ]
    metadata = triton.get_model_metadata("tiny")
    assert [entry["name"] for entry in config["output"]] == [
        entry["name"] for entry in metadata["outputs"]
    ]
    assert config["output"][0]["dims"] == [len(LABELS)]
    assert {"model_configuration", "statistics"} <= set(triton.get_server_metadata()["extensions"])


def test_statistics_count_what_was_done(settings: Settings, pngs: list[bytes]) -> None:
    with running(settings) as client:
        before = stats_of(client.get("/v2/models/tiny/stats").json())
        assert before["inference_count"] == before["last_inference"] == 0
        client.post(INFER, json=request_of(pngs[:3]))
        client.post(INFER, json=request_of([b"text"]))
        found = stats_of(client.get("/v2/models/tiny/versions/1/stats").json())
        assert client.get("/v2/models/stats").json() == {"model_stats": [found]}
        assert client.get("/v2/models/none/stats").status_code == 404
    assert (found["name"], found["version"]) == ("tiny", "1")
    assert found["inference_count"] == 3
    assert 1 <= found["execution_count"] <= 3
    assert 0 <= time.time() - found["last_inference"] / 1000 < 60
    spent = found["inference_stats"]
    assert tuple(spent) == DURATIONS
    assert (spent["success"]["count"], spent["fail"]["count"]) == (1, 1)
    assert spent["compute_input"]["count"] == 3
    for name in ("success", "queue", "compute_input", "compute_infer"):
        assert spent[name]["count"] > 0
        assert 0 < spent[name]["ns"] < 60e9


def test_pixels_as_perf_analyzer_sends_them_are_answered(
    http: httpx.Client, images: NDArray[np.uint8]
) -> None:
    tensor = {"name": "image", "shape": [2, SIZE, SIZE, 3], "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": images[:2].nbytes}
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("label", "exit")]
    head = json.dumps({"id": "1", "inputs": [tensor], "outputs": outputs}).encode()
    headers = {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}
    answer = http.post(INFER, content=head + images[:2].tobytes(), headers=headers)
    assert answer.status_code == 200
    assert int(answer.headers[HEADER]) < len(answer.content)


@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
def test_shared_memory_is_answered_with_501(client: Client, kind: str) -> None:
    for method, path in (
        ("GET", "status"),
        ("GET", "region/a/status"),
        ("POST", "region/a/register"),
        ("POST", "region/a/unregister"),
        ("POST", "unregister"),
    ):
        url = f"/v2/{kind}/{path}"
        answer = client.runner.run(client.http.request(method, url, json={}))
        assert_error(answer, 501, "shared memory")


# MLServer


@pytest.mark.parametrize(("shape", "nested"), [([2], False), ([2, 1], False), ([2, 1], True)])
@pytest.mark.parametrize("where", ["request", "input"])
def test_the_base64_codec_is_read_in_both_shapes(
    client: Client,
    pngs: list[bytes],
    expected: list[Prediction],
    shape: list[int],
    where: str,
    nested: bool,
) -> None:
    data: list[Any] = [base64.b64encode(png).decode() for png in pngs[:2]]
    codec = {"content_type": "base64"}
    tensor = {"name": "image", "shape": shape, "datatype": "BYTES"}
    tensor |= {"data": [[entry] for entry in data] if nested else data}
    tensor |= {"parameters": codec} if where == "input" else {}
    body = {"inputs": [tensor]} | ({"parameters": codec} if where == "request" else {})
    answer = client.post(INFER, json=body)
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    assert outputs["label"]["data"] == [LABELS[p.index] for p in expected[:2]]
    assert outputs["label"]["parameters"] == {"content_type": "str"}
    assert outputs["exit"]["parameters"] == {"content_type": "np"}


def test_the_numpy_codec_is_read(client: Client, images: NDArray[np.uint8]) -> None:
    tensor = {
        **{"name": "image", "shape": list(images[:2].shape), "datatype": "UINT8"},
        **{"parameters": {"content_type": "np"}, "data": images[:2].ravel().tolist()},
    }
    assert client.post(INFER, json={"inputs": [tensor]}).status_code == 200


def test_another_second_dimension_is_refused(client: Client, pngs: list[bytes]) -> None:
    body = request_of(pngs[:2])
    for shape in ([2, 2], [2, 1, 1], [1, 2]):
        body["inputs"][0]["shape"] = shape
        assert_error(client.post(INFER, json=body), 400, "[N, 1]")


def test_outputs_name_no_codec_unless_the_request_does(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(INFER, json=request_of(pngs[:1]))
    assert all("parameters" not in output for output in answer.json()["outputs"])


# KServe's InferenceRESTClient


def test_json_as_kserve_sends_it_is_answered(client: Client, pngs: list[bytes]) -> None:
    body = request_of(pngs[:1], id="3f0a", model_name="tiny")
    # Its httpx sends bytes without a Content-Type.
    answer = client.post(INFER, content=json.dumps(body).encode())
    assert answer.status_code == 200
    assert {"id", "model_name", "model_version", "outputs"} <= set(answer.json())


def test_binary_as_kserve_sends_it_is_answered(client: Client, pngs: list[bytes]) -> None:
    raw = len(pngs[0]).to_bytes(4, "little") + pngs[0]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    body = {"id": "3f0a", "model_name": "tiny", "inputs": [tensor]}
    body["parameters"] = {"binary_data_output": True}
    head = json.dumps(body).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": ""}
    headers["inference-header-content-length"] = str(len(head))
    answer = client.post(INFER, content=head + raw, headers=headers)
    length = int(answer.headers[HEADER])
    outputs = json.loads(answer.content[:length])["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in outputs]
    assert length + sum(sizes) == len(answer.content)


def test_its_probes_are_answered(client: Client) -> None:
    assert client.get("/v2/health/ready").json()["ready"] is True
    assert client.get("/v2/health/live").json()["live"] is True
    assert client.get("/v2/models/tiny/ready").status_code == 200
