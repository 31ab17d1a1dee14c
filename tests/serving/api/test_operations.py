"""Models, policies, readiness, metrics and OpenAPI."""

from __future__ import annotations

import subprocess

from serving.api.app import create_app
from serving.settings import Settings
from tests.debian import require
from tests.serving.conftest import Client, running
from tests.serving.requests import (
    CLASSIFY,
    as_json,
    as_raw,
    assert_error,
    metrics,
)
from tests.serving.tiny_bundle import LABELS


def test_a_model_is_described(client: Client) -> None:
    (summary,) = client.get("/v1/models").json()["models"]
    assert summary["name"] == "tiny"
    assert summary["classes"] == len(LABELS)
    assert summary["input"] == {"height": 8, "width": 8, "resize": "center_crop"}
    assert summary["maps"] is False
    assert summary["precision"] == "fp32"
    assert summary["provider"] == "CPUExecutionProvider"
    assert [exit_["macs"] for exit_ in summary["exits"]] == [1000, 2000, 3000]
    assert summary["policy"]["thresholds"] == [0.6, 0.5]
    assert summary["policy_revision"] == 1
    detail = client.get("/v1/models/tiny").json()
    assert detail == {**summary, "labels": list(LABELS), "conversion": None, "unsaved_policy": None}


def test_the_policy_comes_with_its_revision(client: Client) -> None:
    answer = client.get("/v1/models/tiny/policy")
    assert answer.headers["ETag"] == '"1"'
    assert answer.json()["revision"] == 1
    assert answer.json()["policy"]["mode"] == "early_exit"


def test_readiness_follows_the_servers_life(settings: Settings, pngs: list[bytes]) -> None:
    starting = Client(create_app(settings))
    with starting.runner:
        assert_error(starting.get("/readyz"), 503, "not_ready")
        assert_error(starting.post(CLASSIFY, **as_raw(pngs[0])), 503, "not_ready")
        assert starting.get("/livez").status_code == 200
    with running(settings) as client:
        assert client.get("/readyz").status_code == 200
        client.app.state.service.drain()
        assert_error(client.get("/readyz"), 503, "draining")
        assert client.get("/livez").status_code == 200
        assert client.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200


def test_metrics_count_what_happened(client: Client, pngs: list[bytes]) -> None:
    client.post(f"{CLASSIFY}?threshold=0", **as_json(pngs[:3]))
    client.post(f"{CLASSIFY}?threshold=2", **as_raw(pngs[0]))
    client.post(CLASSIFY, **as_raw(b"text"))
    client.post(f"{CLASSIFY}?model=x", **as_raw(pngs[0]))
    client.post(f"{CLASSIFY}?colour=red", **as_raw(pngs[0]))
    client.get("/nowhere")
    found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'offramp_requests_total{model="tiny",outcome="ok"} 2.0',
        'offramp_requests_total{model="tiny",outcome="invalid_image"} 1.0',
        'offramp_requests_total{model="",outcome="not_found"} 1.0',
        'offramp_requests_total{model="",outcome="invalid_request"} 1.0',
        'offramp_rejected_total{reason="not_found"} 2.0',
        'offramp_exits_total{exit="1",model="tiny"} 3.0',
        'offramp_exits_total{exit="3",model="tiny"} 1.0',
        'offramp_request_duration_seconds_count{exit="1",model="tiny"} 1.0',
        'offramp_request_duration_seconds_count{exit="3",model="tiny"} 1.0',
        'offramp_stage_duration_seconds_count{model="tiny",stage="3"} 1.0',
        'offramp_stage_batch_size_sum{model="tiny",stage="1"} 4.0',
        'offramp_stage_batch_size_sum{model="tiny",stage="3"} 1.0',
        'offramp_queue_duration_seconds_count{model="tiny",stage="0"} 5.0',
        'offramp_queue_duration_seconds_count{model="tiny",stage="1"} 4.0',
        'offramp_queue_duration_seconds_count{model="tiny",stage="3"} 1.0',
        'offramp_queue_depth{model="tiny",stage="0"} 0.0',
        'offramp_decode_duration_seconds_count{model="tiny"} 4.0',
        'offramp_expired_total{model="tiny"} 0.0',
        'offramp_confidence_count{exit="1",model="tiny"} 3.0',
        'offramp_threshold{exit="1",model="tiny"} 0.6',
        'offramp_policy_revision{model="tiny"} 1.0',
        'offramp_model_info{model="tiny",precision="fp32",provider="CPUExecutionProvider",'
        'version="1"} 1.0',
    ):
        assert line in found.text.replace(", ", ",")


def test_promtool_finds_no_problem_in_the_metrics(client: Client, pngs: list[bytes]) -> None:
    client.post(CLASSIFY, **as_json(pngs[:3]))
    client.post(CLASSIFY, **as_raw(b"text"))
    promtool = require("prometheus", "promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=metrics(client), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_two_apps_count_apart(settings: Settings, client: Client, pngs: list[bytes]) -> None:
    client.post(CLASSIFY, **as_raw(pngs[0]))
    with running(settings) as other:
        assert 'outcome="ok"' in metrics(client)
        assert 'outcome="ok"' not in metrics(other)


def test_openapi_documents_bodies_and_errors(client: Client) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"][CLASSIFY]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "image/jpeg",
        "image/png",
        "image/webp",
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }
    resolved = {parameter["name"] for parameter in operation["parameters"]}
    assert resolved == {
        "model",
        "top_k",
        "mode",
        "threshold",
        "reject_below",
        "max_exit",
        "deadline_ms",
        "priority",
    }
    assert {"200", "400", "404", "413", "415", "429", "503"} <= set(operation["responses"])
    documented = {
        status
        for path in schema["paths"].values()
        for verb in path.values()
        for status in verb["responses"]
    }
    assert "422" not in documented
