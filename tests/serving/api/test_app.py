from __future__ import annotations

import asyncio
import base64
import subprocess
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image

from serving.api.app import create_app
from serving.inference.engine import Engine
from serving.settings import Settings
from tests.debian import require
from tests.serving.conftest import Client, encode, running
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle

PNG = {"Content-Type": "image/png"}
CLASSIFY = "/v1/classify"


def as_json(files: list[bytes]) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(file).decode() for file in files]}}


def as_multipart(files: list[bytes], field: str = "files") -> dict[str, Any]:
    return {"files": [(field, (f"{i}.png", file, "image/png")) for i, file in enumerate(files)]}


def as_raw(file: bytes) -> dict[str, Any]:
    return {"content": file, "headers": PNG}


def assert_error(answer: httpx.Response, status: int, code: str, says: str = "") -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error", "code"]
    assert body["code"] == code
    assert says in body["error"]
    assert body["error"].endswith(".")
    assert answer.headers["X-Request-ID"]


# Answers


def test_an_answer_has_the_documented_form(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(CLASSIFY, **as_raw(pngs[0]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["model", "version", "predictions", "timing_ms"]
    assert (body["model"], body["version"]) == ("tiny", "1")
    (prediction,) = body["predictions"]
    assert list(prediction) == ["label", "index", "confidence", "exit", "exits", "reason", "top_k"]
    assert prediction["label"] == LABELS[prediction["index"]]
    assert prediction["exits"] == EXITS
    assert prediction["reason"] in ("confident", "max_exit")
    assert len(prediction["top_k"]) == 5
    best = prediction["top_k"][0]
    assert (best["label"], best["index"]) == (prediction["label"], prediction["index"])
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


# Errors


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("colour=red", "'colour'"),
        ("top_k=0", "top_k"),
        ("top_k=8", "between 1 and 7"),
        ("top_k=many", "top_k"),
        ("mode=guess", "mode"),
        ("threshold=-1", "threshold"),
        ("threshold=nan", "threshold"),
        ("max_exit=0", "max_exit"),
        ("max_exit=4", "between 1 and 3"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: Client, pngs: list[bytes], query: str, says: str
) -> None:
    answer = client.post(f"{CLASSIFY}?{query}", **as_raw(pngs[0]))
    assert_error(answer, 400, "invalid_request", says)


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data"}


@pytest.mark.parametrize(
    ("content", "headers", "says"),
    [
        (b"{", JSON, "JSON"),
        (b"\xff\xfe", JSON, "JSON"),
        (b"[" * 10_000, JSON, "JSON"),
        (b"[]", JSON, "images"),
        (b"{}", JSON, "images"),
        (b'{"images": "aGk="}', JSON, "images"),
        (b'{"images": [], "model": "tiny"}', JSON, "images"),
        (b'{"images": []}', JSON, "no images"),
        (b'{"images": [1]}', JSON, "Image 1"),
        (b'{"images": ["aGk=", "?"]}', JSON, "Image 2"),
        (b'{"images": ["\xc3\xa9"]}', JSON, "Image 1"),
        (b"", FORM, "multipart"),
        (b"nonsense", {"Content-Type": "multipart/form-data; boundary=x"}, "multipart"),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, "no images"),
    ],
)
def test_a_malformed_body_is_refused(
    client: Client, content: bytes, headers: dict[str, str], says: str
) -> None:
    answer = client.post(CLASSIFY, content=content, headers=headers)
    assert_error(answer, 400, "invalid_request", says)


def test_a_query_of_kilobytes_is_not_read(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(f"{CLASSIFY}?model={'x' * 5000}", **as_raw(pngs[0]))
    assert_error(answer, 400, "invalid_request", "4096 bytes")


def test_a_form_that_was_cut_off_is_not_answered_in_part(client: Client, pngs: list[bytes]) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n%b\r\n'
    whole = part % pngs[0] + part % pngs[1] + b"--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert len(client.post(CLASSIFY, content=whole, headers=headers).json()["predictions"]) == 2
    for end in (-7, -20, -len(pngs[1]) - 9):
        answer = client.post(CLASSIFY, content=whole[:end], headers=headers)
        assert_error(answer, 400, "invalid_request", "before its last boundary")


def test_multipart_parts_must_be_called_files(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(CLASSIFY, **as_multipart(pngs[:1], field="photo"))
    assert_error(answer, 400, "invalid_request", "'files'")


def test_too_many_images_are_refused(client: Client, pngs: list[bytes]) -> None:
    for body in (as_json(pngs[:9]), as_multipart(pngs[:9])):
        assert_error(client.post(CLASSIFY, **body), 400, "invalid_request", "8")


def test_a_bad_image_is_refused_and_numbered(client: Client, pngs: list[bytes]) -> None:
    assert_error(client.post(CLASSIFY, **as_raw(b"text")), 400, "invalid_image", "JPEG")
    assert_error(client.post(CLASSIFY, **as_raw(b"")), 400, "invalid_image", "empty")
    answer = client.post(CLASSIFY, **as_json([pngs[0], pngs[1][:40]]))
    assert_error(answer, 400, "invalid_image", "Image 2 of 2")


def test_an_unknown_model_is_not_found(client: Client, pngs: list[bytes]) -> None:
    assert_error(client.post(f"{CLASSIFY}?model=x", **as_raw(pngs[0])), 404, "not_found")
    assert_error(client.get("/v1/models/x"), 404, "not_found")
    assert_error(client.get("/v1/models/x/policy"), 404, "not_found")


def test_an_unknown_address_or_method_has_the_same_form(client: Client) -> None:
    assert_error(client.get("/nowhere"), 404, "not_found")
    wrong = client.get(CLASSIFY)
    assert_error(wrong, 405, "method_not_allowed", "GET")
    assert wrong.headers["Allow"] == "POST"


@pytest.mark.parametrize("kind", ["image/gif", "text/plain", "application/x-www-form-urlencoded"])
def test_another_media_type_is_refused(client: Client, pngs: list[bytes], kind: str) -> None:
    answer = client.post(CLASSIFY, content=pngs[0], headers={"Content-Type": kind})
    assert_error(answer, 415, "unsupported_type", "image/jpeg")


def test_a_body_without_a_type_or_compressed_is_refused(client: Client, pngs: list[bytes]) -> None:
    assert_error(client.post(CLASSIFY, content=pngs[0]), 415, "unsupported_type")
    packed = client.post(CLASSIFY, content=pngs[0], headers={**PNG, "Content-Encoding": "gzip"})
    assert_error(packed, 415, "unsupported_type", "without encoding")


def test_a_large_body_is_refused_in_every_form(client: Client) -> None:
    large = b"\0" * 20_001
    assert_error(client.post(CLASSIFY, **as_raw(large)), 413, "too_large", "20000")
    assert_error(client.post(CLASSIFY, **as_json([large])), 413, "too_large")
    assert_error(client.post(CLASSIFY, **as_multipart([large])), 413, "too_large")


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_a_large_body_of_undeclared_length_is_not_read_to_its_end(
    client: Client, kind: str
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(1000):
            sent += 1
            yield b"\0" * 1000

    answer = client.post(CLASSIFY, content=endless(), headers={"Content-Type": kind})
    assert_error(answer, 413, "too_large")
    assert sent <= 21


def test_an_unexpected_fault_tells_nothing_but_its_id(
    client: Client, pngs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    client.app.state.service.models.get(None).engine.judge = broken
    answer = client.post(CLASSIFY, content=pngs[0], headers={**PNG, "X-Request-ID": "abc"})
    assert_error(answer, 500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] == "abc"
    assert "request abc failed" in caplog.text
    assert "secret detail" in caplog.text
    assert 'offramp_requests_total{model="tiny",outcome="internal"} 1.0' in metrics(client)


# Request ids


def test_a_usable_request_id_is_echoed(client: Client) -> None:
    for path in ("/livez", "/nowhere", "/v1/models"):
        answer = client.get(path, headers={"X-Request-ID": "trace-1/a"})
        assert answer.headers["X-Request-ID"] == "trace-1/a"


@pytest.mark.parametrize("given", ["", "a b", "é".encode(), "x" * 129])
def test_another_request_id_is_replaced(client: Client, given: str | bytes) -> None:
    found = client.get("/livez", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert len(found) == 32
    assert found.isalnum()


# Models, probes, metrics


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
    assert detail == {**summary, "labels": list(LABELS), "conversion": None}


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


def metrics(client: Client) -> str:
    return client.get("/metrics").text


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


def test_promtool_has_nothing_to_say_of_the_metrics(client: Client, pngs: list[bytes]) -> None:
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
        "multipart/form-data",
        "application/json",
    }
    resolved = {parameter["name"] for parameter in operation["parameters"]}
    assert resolved == {
        "model",
        "top_k",
        "mode",
        "threshold",
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


# Load


class Gate:
    """Stands in for an engine's stage 1: waits until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self._run = engine.run_stage
        engine.run_stage = self.run  # type: ignore[method-assign]

    def run(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self.opened.wait(10)
        return self._run(*arguments)


def test_probes_answer_while_the_engine_is_busy(client: Client, pngs: list[bytes]) -> None:
    gate = Gate(client.app.state.service.models.get(None).engine)

    async def scenario() -> None:
        busy = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
        assert await asyncio.to_thread(gate.entered.wait, 10)
        assert (await client.http.get("/livez")).status_code == 200
        assert not busy.done()
        gate.opened.set()
        assert (await busy).status_code == 200

    client.runner.run(scenario())


@pytest.mark.serial
def test_decoding_does_not_hold_the_event_loop(
    client: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        decoding.set()
        assert go_on.wait(20)
        raise RuntimeError("never mind")

    monkeypatch.setattr("serving.scheduling.execution.decode", slow)

    async def scenario() -> None:
        busy = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
        assert await asyncio.to_thread(decoding.wait, 20)
        assert (await client.http.get("/livez")).status_code == 200
        assert not busy.done()
        go_on.set()
        await busy

    client.runner.run(scenario())


def test_past_the_queues_end_requests_are_refused_at_once(
    bundle_path: Any, pngs: list[bytes]
) -> None:
    limited = Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3)
    with running(limited) as client:
        gate = Gate(client.app.state.service.models.get(None).engine)

        async def scenario() -> None:
            first = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
            assert await asyncio.to_thread(gate.entered.wait, 10)
            refused = await client.http.post(CLASSIFY, **as_json(pngs[:2]))
            assert_error(refused, 429, "over_capacity")
            assert refused.headers["Retry-After"] == "1"
            gate.opened.set()
            assert (await first).status_code == 200
            again = await client.http.post(CLASSIFY, **as_json(pngs[:2]))
            assert again.status_code == 200

        client.runner.run(scenario())


def test_stopping_finishes_accepted_work(bundle_path: Any, pngs: list[bytes]) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1)) as client:
        gate = Gate(client.app.state.service.models.get(None).engine)

        async def scenario() -> None:
            busy = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
            assert await asyncio.to_thread(gate.entered.wait, 10)
            closing = asyncio.create_task(asyncio.to_thread(client.app.state.service.close))
            await asyncio.sleep(0.05)
            assert not closing.done()
            gate.opened.set()
            await closing
            assert (await busy).status_code == 200

        client.runner.run(scenario())


def test_mixed_requests_at_once_each_get_their_own_answer(
    client: Client, pngs: list[bytes]
) -> None:
    queries = ["threshold=0", "threshold=2", "mode=ensemble", "max_exit=2"]
    wanted = {
        (i, query): client.post(f"{CLASSIFY}?{query}", **as_raw(pngs[i])).json()["predictions"]
        for i in range(0, 40, 10)
        for query in queries
    }

    async def ask(i: int, query: str) -> None:
        answer = await client.http.post(f"{CLASSIFY}?{query}", **as_raw(pngs[i]))
        assert answer.json()["predictions"] == wanted[i, query]

    async def scenario() -> None:
        await asyncio.gather(*(ask(*key) for key in wanted for _ in range(3)))

    client.runner.run(scenario())


def test_a_photo_is_brought_to_the_inputs_size(client: Client) -> None:
    photo = encode(Image.new("RGB", (300, 200), "orange"), "JPEG")
    answer = client.post(CLASSIFY, content=photo, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200
