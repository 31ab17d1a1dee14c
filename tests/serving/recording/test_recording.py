"""A server that records: what is written of its answers, and labels that come later."""

from __future__ import annotations

import base64
import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from exports.tuning.requests.recorded import record_files, whole_lines
from exports.tuning.requests.samples import read_recorded
from serving.inference.engine import Engine, Prediction
from serving.recording import recorder
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.requests import CLASSIFY, as_json, as_raw, assert_error, metrics
from tests.serving.tiny_bundle import EXITS, LABELS

FEEDBACK = "/v1/feedback"
Serve = Callable[..., Any]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture
def recording(settings: Settings, directory: Path) -> Callable[..., Settings]:
    """The settings of a server that records, with others changed."""

    def changed(**others: Any) -> Settings:
        return settings.model_copy(update={"record": directory, "record_full_share": 0.0, **others})

    return changed


@pytest.fixture
def served(recording: Callable[..., Settings]) -> Iterator[Client]:
    with running(recording()) as client:
        yield client


def records(directory: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for file in record_files(directory) for _, line in whole_lines(file)]


def wait_for(directory: Path, count: int, **fields: object) -> list[dict[str, Any]]:
    """The records with `fields`, once there are `count`."""
    deadline = time.monotonic() + 20
    while True:
        found = [r for r in records(directory) if fields.items() <= r.items()]
        if len(found) >= count:
            assert len(found) == count
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def wait_until_in_metrics(client: Client, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in metrics(client):
        assert time.monotonic() < deadline, metrics(client)
        time.sleep(0.02)


def test_every_answer_is_recorded_with_the_logits_of_its_exits(
    served: Client, pngs: list[bytes], expected: list[Prediction], directory: Path
) -> None:
    answer = served.post(CLASSIFY, **as_json(pngs[:8]))
    found = wait_for(directory, 8, id=answer.headers["X-Request-ID"])
    assert [record["image"] for record in found] == list(range(8))
    for record, prediction in zip(found, expected[:8], strict=True):
        assert record["exit"] == prediction.exit == len(record["logits"])
        assert record["model"] == "tiny"
        assert {len(row) for row in record["logits"]} == {len(LABELS)}
        assert "file" not in record
    assert len({record["exit"] for record in found}) > 1


def test_streams_and_v2_are_recorded(served: Client, pngs: list[bytes], directory: Path) -> None:
    identified = {**as_raw(pngs[0])["headers"], "X-Request-ID": "stream"}
    served.post(f"{CLASSIFY}/stream?run_all_exits=true", content=pngs[0], headers=identified)
    headers = {"Inference-Header-Content-Length": "0", "X-Request-ID": "v2"}
    served.post("/v2/models/tiny/infer", content=pngs[1], headers=headers)
    wait_for(directory, 1, id="stream")
    wait_for(directory, 1, id="v2")


def test_a_share_runs_all_exits_whatever_its_answer(
    recording: Callable[..., Settings],
    pngs: list[bytes],
    directory: Path,
    engine: Engine,
    bundle: Bundle,
    images: np.ndarray,
) -> None:
    with running(recording(record_full_share=1.0)) as client:
        for png in pngs[:8]:
            client.post(CLASSIFY, **as_raw(png))
        deadline = time.monotonic() + 20
        while len([r for r in records(directory) if r["sampled"]]) < 8:
            client.get("/livez")
            assert time.monotonic() < deadline
    log = read_recorded(directory, bundle.manifest)
    keeping = Engine(bundle, keep_logits=True)
    full = Policy(mode="ensemble", thresholds=(2.0, 2.0), max_exit=EXITS)
    logits = [p.logits for p in keeping.classify(images[:8], full)]
    # An image may wait behind the next one, since it runs at low priority.
    found = sorted(log.table.logits.swapaxes(0, 1).tolist())
    np.testing.assert_allclose(found, sorted(np.stack(logits).tolist()), atol=1e-3)
    assert log.target == "agreement"
    assert "8 images recorded, 8 with all exits" in log.source


def test_a_policy_without_early_exits_needs_no_second_run(
    served: Client, pngs: list[bytes], directory: Path
) -> None:
    served.post(f"{CLASSIFY}?mode=ensemble", **as_raw(pngs[0]))
    served.post(f"{CLASSIFY}?threshold=2", **as_raw(pngs[0]))
    wait_for(directory, 2, sampled=True)
    served.post(f"{CLASSIFY}?max_exit=2", **as_raw(pngs[0]))
    wait_for(directory, 1, sampled=False)


def test_images_are_recorded_only_if_that_was_asked_for(
    recording: Callable[..., Settings], pngs: list[bytes], directory: Path
) -> None:
    with running(recording(record_images=True)) as client:
        client.post(CLASSIFY, **as_raw(pngs[0]))
    (record,) = records(directory)
    assert base64.b64decode(record["file"]) == pngs[0]


def test_a_label_by_name_or_index_is_stored_once(
    served: Client, pngs: list[bytes], directory: Path, bundle: Bundle
) -> None:
    request_id = served.post(f"{CLASSIFY}?threshold=2", **as_json(pngs[:2])).headers["X-Request-ID"]
    for _ in range(2):
        answer = served.post(FEEDBACK, json={"id": request_id, "label": "cat"})
        assert answer.status_code == 200
        assert answer.json() == {"id": request_id, "image": 0, "label": "cat", "index": 2}
    served.post(FEEDBACK, json={"id": request_id, "label": 0, "image": 1})
    served.post(FEEDBACK, json={"id": request_id, "label": 3, "image": 1})
    log = read_recorded(directory, bundle.manifest)
    assert log.target == "labels"
    assert log.table.labels.tolist() == [2, 3]


def test_labels_survive_a_restart(
    recording: Callable[..., Settings], pngs: list[bytes], directory: Path, bundle: Bundle
) -> None:
    with running(recording()) as client:
        for name in ("one", "two"):
            headers = {"Content-Type": "image/png", "X-Request-ID": name}
            client.post(f"{CLASSIFY}?threshold=2", content=pngs[0], headers=headers)
        assert client.post(FEEDBACK, json={"id": "one", "label": 1}).status_code == 200
    with running(recording()) as client:
        assert client.post(FEEDBACK, json={"id": "two", "label": 2}).status_code == 200
        assert client.post(FEEDBACK, json={"id": "one", "label": 5}).status_code == 200
    assert read_recorded(directory, bundle.manifest).table.labels.tolist() == [5, 2]


def test_feedback_that_cannot_be_stored_is_refused(served: Client, pngs: list[bytes]) -> None:
    request_id = served.post(CLASSIFY, **as_raw(pngs[0])).headers["X-Request-ID"]
    for body, status, code in (
        ({"id": "unknown", "label": 1}, 404, "not_found"),
        ({"id": request_id, "label": 1, "image": 1}, 404, "not_found"),
        ({"id": request_id, "label": "unicorn"}, 400, "invalid_request"),
        ({"id": request_id, "label": len(LABELS)}, 400, "invalid_request"),
        ({"id": request_id, "label": -1}, 400, "invalid_request"),
        ({"id": request_id, "label": True}, 400, "invalid_request"),
        ({"id": request_id}, 400, "invalid_request"),
    ):
        assert_error(served.post(FEEDBACK, json=body), status, code)


@pytest.mark.parametrize("label", [None, True, 1.0, ["cat"], "x" * 1025])
def test_feedback_without_a_name_or_index_says_what_is_allowed(served: Client, label: Any) -> None:
    refused = served.post(FEEDBACK, json={"id": "a", "label": label})
    says = "The parameter label is not valid: it must be the name of a class"
    assert_error(refused, 400, "invalid_request", says)
    assert "or its index." in refused.json()["error"]


def test_a_server_that_does_not_record_says_so(client: Client) -> None:
    assert_error(client.post(FEEDBACK, json={"id": "a", "label": 1}), 409, "not_recording")


def test_a_full_disk_stops_no_answer_and_logs_one_line(
    served: Client,
    pngs: list[bytes],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = served.app.state.service.recording.recorder._store

    def full(lines: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recorder, "RETRY_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "append", full)
        for number in range(1, 4):
            assert served.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200
            dropped = f'offramp_record_dropped_total{{reason="disk"}} {number}.0'
            wait_until_in_metrics(served, dropped)
    errors = [r for r in caplog.records if r.levelname == "ERROR"]
    assert [r.message for r in errors] == ["requests are not recorded: No space left on device"]
    served.post(CLASSIFY, **as_raw(pngs[0]))
    wait_for(directory, 1)
    wait_until_in_metrics(served, "offramp_recorded_total 1.0")


def test_requests_beyond_the_queue_are_dropped_and_counted(
    served: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_QUEUED", 0)
    assert served.post(CLASSIFY, **as_json(pngs[:3])).status_code == 200
    wait_until_in_metrics(served, 'offramp_record_dropped_total{reason="queue_full"} 3.0')
    answer = served.post(FEEDBACK, json={"id": "a", "label": 1})
    assert_error(answer, 503, "records_unavailable")
