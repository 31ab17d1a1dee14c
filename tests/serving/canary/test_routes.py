"""Starting, watching, promoting and rolling back a canary, and what it answers."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine
from serving.service import Service
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.canary.conftest import CANARY, answer_of, start
from tests.serving.conftest import Client
from tests.serving.models.bundles import version
from tests.serving.requests import CLASSIFY, as_json, as_raw, assert_error, metrics

STREAM = "/v1/classify/stream"


def events(text: str) -> list[tuple[str, Any]]:
    parts = [part.split("\n") for part in text.strip().split("\n\n")]
    return [(name[len("event: ") :], json.loads(data[len("data: ") :])) for name, data in parts]


def test_without_a_canary_the_route_says_so(client: Client) -> None:
    found = client.get(CANARY).json()
    assert found == {"sentence": "No canary is running.", "running": None, "ended": []}
    assert "offramp_canary_requests_total{" not in metrics(client)
    assert client.get("/v1/models/none/canary").status_code == 404
    for answer in (
        client.delete(CANARY),
        client.post(f"{CANARY}/promote"),
        client.runner.run(client.http.patch(CANARY, json={"share": 0.5})),
    ):
        assert_error(answer, 404, "not_found", "has no canary")


def test_the_canary_answers_its_share_and_every_answer_names_its_version(
    client: Client, repository: Path, images: NDArray[np.uint8], pngs: list[bytes]
) -> None:
    engines = {v: Engine(load_bundle(repository / f"tiny-{v}")) for v in "12"}
    policy = load_bundle(repository / "tiny-1").policy
    expected = {v: engine.classify(images, policy) for v, engine in engines.items()}
    running = start(client, share=0.5)
    assert (running["stable"]["version"], running["canary"]["version"]) == ("1", "2")
    counts = {"1": 0, "2": 0}
    for number, png in enumerate(pngs):
        answer = answer_of(client, png)
        (found,) = answer["predictions"]
        counts[answer["version"]] += 1
        right = expected[answer["version"]][number]
        assert (found["index"], found["exit"]) == (right.index, right.exit)
    assert min(counts.values()) > 5  # of 40; less has a probability of 3e-7
    found = client.get(CANARY).json()
    sides = found["running"]
    assert {
        sides[role]["version"]: sides[role]["requests"] for role in ("stable", "canary")
    } == counts
    assert found["sentence"] == (
        f"Version 2 answers 50.0% of the requests, {counts['2']} so far; version 1 answers the others."
    )
    assert sum(sides["canary"]["exit_shares"]) == pytest.approx(1, abs=1e-3)
    assert sides["canary"]["mean_ms"] >= sides["canary"]["stages_mean_ms"] > 0
    assert sides["canary"]["p99_ms"] is None  # too few


def test_metrics_have_both_versions_side_by_side(client: Client, pngs: list[bytes]) -> None:
    start(client, share=1.0)
    answer_of(client, pngs[0])
    text = metrics(client)
    labels = 'model="tiny",outcome="ok",role="canary",version="2"'
    assert f"offramp_canary_requests_total{{{labels}}} 1.0" in text
    assert 'offramp_canary_share{model="tiny",version="2"} 1.0' in text
    assert 'offramp_canary_request_duration_seconds_count{model="tiny",role="canary"' in text
    # Existing metrics count both versions under the model's name.
    assert 'offramp_requests_total{model="tiny",outcome="ok"} 1.0' in text
    client.delete(CANARY)
    text = metrics(client)
    assert "offramp_canary_share{" not in text
    assert 'offramp_canary_ended_total{model="tiny",outcome="request"} 1.0' in text
    # The served model's own are untouched.
    assert 'offramp_policy_revision{model="tiny"} 1.0' in text
    assert 'version="1"' in text.split("offramp_model_info{")[1]


def test_a_header_s_value_stays_with_its_version_when_the_share_is_raised(
    client: Client, pngs: list[bytes]
) -> None:
    start(client, share=0.3, header="X-User")

    def versions() -> list[str]:
        return [answer_of(client, pngs[0], **{"X-User": f"user-{n}"})["version"] for n in range(30)]

    first = versions()
    assert versions() == first
    assert set(first) == {"1", "2"}
    assert client.runner.run(client.http.patch(CANARY, json={"share": 0.8})).status_code == 200
    second = versions()
    assert second.count("2") > first.count("2")
    assert all(after == "2" for before, after in zip(first, second, strict=True) if before == "2")


def test_bounds_that_are_not_given_stay(client: Client) -> None:
    bounds = {"max_error_rate": 0.2, "max_latency_ratio": 3.0, "min_agreement": 0.9}
    start(client, bounds=bounds)
    for change in ({"max_latency_ratio": 5.0}, {"min_agreement": None}):
        answer = client.runner.run(client.http.patch(CANARY, json={"bounds": change}))
        bounds |= change
        assert answer.json()["running"]["plan"]["bounds"] == bounds


def test_every_form_of_request_takes_part(client: Client, pngs: list[bytes]) -> None:
    start(client, share=1.0)
    assert client.post(CLASSIFY, **as_json(pngs[:2])).json()["version"] == "2"
    assert client.post(INFER, json=request_of(pngs[:1])).json()["model_version"] == "2"
    found = events(client.post(STREAM, **as_raw(pngs[0])).text)
    assert [data["version"] for name, data in found if name == "answer"] == ["2"]
    assert client.get(CANARY).json()["running"]["canary"]["requests"] == 3


def test_a_client_of_v2_may_choose_the_version(client: Client, pngs: list[bytes]) -> None:
    start(client, share=0.5)
    for chosen in ("1", "2", "1", "2"):
        url = f"/v2/models/tiny/versions/{chosen}/infer"
        assert client.post(url, json=request_of(pngs[:1])).json()["model_version"] == chosen
    assert client.post("/v2/models/tiny/versions/3/infer", json={}).status_code == 404
    running = client.get(CANARY).json()["running"]
    # Such requests are no part of the comparison.
    assert running["canary"]["requests"] == running["stable"]["requests"] == 0


def test_a_promoted_canary_serves_everything(
    client: Client, service: Service, pngs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    start(client, share=0.0)
    assert answer_of(client, pngs[0])["version"] == "1"
    with caplog.at_level(logging.INFO, "offramp.canary"):
        found = client.post(f"{CANARY}/promote").json()
    assert (found["running"], found["ended"][0]["outcome"]) == (None, "promoted")
    assert version(client, "tiny") == answer_of(client, pngs[0])["version"] == "2"
    assert client.get("/v1/models/tiny/policy").json()["revision"] == 2
    assert "tiny: canary 2 ended. It was promoted." in caplog.text
    assert service.canaries.running == {}


def test_a_canary_that_is_rolled_back_is_freed(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    start(client, share=1.0)
    engine = service.canaries.running["tiny"].model.engine
    found = client.delete(CANARY).json()
    assert found["running"] is None
    assert found["ended"][0]["sentence"] == "It was rolled back on request."
    assert found["ended"][0]["report"]["bundle"] == "tiny-2"
    assert answer_of(client, pngs[0])["version"] == "1"
    client.runner.run(asyncio.sleep(0))
    assert service.dispatcher.load(engine) is None
    # Another one may be tried.
    assert start(client, "tiny-3")["canary"]["version"] == "3"


def test_a_canary_that_gives_no_logits_is_rolled_back_and_no_request_fails(
    client: Client, pngs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    start(client, "tiny-4", share=1.0)
    found = events(client.post(STREAM, **as_raw(pngs[0])).text)
    assert [data["version"] for name, data in found if name == "answer"] == ["1"]
    assert client.post(INFER, json=request_of(pngs[:1])).json()["model_version"] == "1"
    for number in range(8):
        assert answer_of(client, pngs[number])["version"] == "1"
    (ended,) = client.get(CANARY).json()["ended"]
    assert (ended["outcome"], ended["report"]["errors"]["events"]) == ("error_rate", 10)
    assert ended["report"]["canary"] | {"exit_shares": None} == {
        **{"version": "4", "requests": 10, "errors": 10, "exit_shares": None},
        **dict.fromkeys(("mean_ms", "p99_ms")),
        **dict.fromkeys(("stages_mean_ms", "stages_p50_ms", "stages_p95_ms")),
    }
    assert "tiny: canary 4 ended. It was rolled back: its share of failed requests" in caplog.text
    labels = 'model="tiny",outcome="invalid_output",role="canary",version="4"'
    assert f"offramp_canary_requests_total{{{labels}}} 10.0" in metrics(client)
    assert 'offramp_requests_total{model="tiny",outcome="ok"} 10.0' in metrics(client)


def test_a_canary_that_disagrees_is_rolled_back(client: Client, pngs: list[bytes]) -> None:
    start(client, share=1.0, mirror_share=1.0, bounds={"min_agreement": 0.95})
    for number in range(200):
        answer_of(client, pngs[number % len(pngs)])
        client.runner.run(asyncio.sleep(0.005))
        if client.get(CANARY).json()["running"] is None:
            break
    (ended,) = client.get(CANARY).json()["ended"]
    assert ended["outcome"] == "agreement"
    assert ended["report"]["disagreements"]["interval"][0] > 0.05
    assert 'outcome="disagrees",version="2"' in metrics(client)


def test_a_canary_of_equal_weights_agrees(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    start(client, "tiny-3", share=1.0, mirror_share=1.0, bounds={"min_agreement": 1.0})
    client.post(CLASSIFY, **as_json(pngs[:8]))
    client.post(INFER, json=request_of(pngs[:1]))
    for _ in range(200):
        client.runner.run(asyncio.sleep(0.005))
        found = client.get(CANARY).json()["running"]["disagreements"]
        if found["count"] == 2:
            break
    assert (found["count"], found["events"]) == (2, 0)


def test_options_that_the_canary_lacks_are_answered_by_the_stable_version(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    start(client, share=1.0)
    canary = service.canaries.running["tiny"]
    canary.model = replace(canary.model, policy=Policy(thresholds=(0.5,), max_exit=2))
    answer = answer_of(client, pngs[0], f"{CLASSIFY}?max_exit=3&threshold=2")
    assert (answer["version"], answer["predictions"][0]["exit"]) == ("1", 3)
    assert client.post(f"{CLASSIFY}?max_exit=4", **as_raw(pngs[0])).status_code == 400


def test_errors_of_the_client_are_not_the_canary_s(client: Client, pngs: list[bytes]) -> None:
    start(client, share=1.0)
    assert client.post(CLASSIFY, **as_raw(b"no image")).status_code == 400
    assert client.get(CANARY).json()["running"]["errors"]["count"] == 0


def test_answers_of_the_canary_are_not_tested_for_drift(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    start(client, share=1.0)
    model = service.canaries.running["tiny"].model
    answer_of(client, pngs[0])
    assert all(model is not watched.model for watched in service.drift._watched.values())


def test_a_new_stable_version_ends_the_canary(
    client: Client, service: Service, repository: Path
) -> None:
    start(client, share=0.5)
    client.runner.run(service.manager.load_path(repository / "tiny-3"))
    found = client.get(CANARY).json()
    assert (found["running"], found["ended"][0]["outcome"]) == (None, "replaced")
    assert version(client, "tiny") == "3"


def test_a_policy_may_change_meanwhile(client: Client, pngs: list[bytes]) -> None:
    start(client, share=0.0)
    first_exit = {"thresholds": [0.0, 0.0], "max_exit": 3}
    assert client.put("/v1/models/tiny/policy", json=first_exit).status_code == 200
    assert answer_of(client, pngs[0])["predictions"][0]["exit"] == 1
    assert client.get(CANARY).json()["running"]["stable"]["requests"] == 1
