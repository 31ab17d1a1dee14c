"""Jobs in process: what is answered, refused and deleted."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path
from typing import Any

import pytest

from serving.api.jobs import receiving
from serving.inference.engine import Engine
from serving.jobs import runner
from serving.jobs.job import Results
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.jobs.archives import ZIP, as_form, as_tar, as_tar_gz, as_zip, zipped
from tests.serving.jobs.conftest import JOBS, finished, left, post, rows_of, wait_for
from tests.serving.requests import CLASSIFY, as_raw, assert_error, metrics
from tests.serving.tiny_bundle import write_tiny_bundle


@pytest.mark.parametrize("form", [as_zip, as_tar, as_tar_gz, as_form])
def test_every_image_gets_what_it_would_get_alone(
    client: Client, pngs: list[bytes], form: Any
) -> None:
    files = {f"{number}.png": png for number, png in enumerate(pngs)}
    files |= {"text": b"text", "large": bytes(20_001), "empty": b""}
    answer = client.post(f"{JOBS}?top_k=2&threshold=0.7", **form(files))
    assert answer.status_code == 202
    job = answer.json()
    assert (job["state"], job["images"], job["done"]) == ("queued", len(files), 0)
    assert answer.headers["Location"] == f"{JOBS}/{job['id']}"
    job = wait_for(client.get, job["id"], finished)
    assert (job["state"], job["done"], job["failed"]) == ("done", len(files), 3)
    rows = rows_of(client.get, job["id"])
    assert [(row["image"], row["file"]) for row in rows] == list(enumerate(files))
    for row, file in zip(rows, files.values(), strict=True):
        assert (row["model"], row["version"]) == ("tiny", "1")
        (entry,) = row["predictions"]
        if row["file"] == "large":
            assert entry["code"] == "too_large"
            continue
        alone = client.post(f"{CLASSIFY}?top_k=2&threshold=0.7", **as_raw(file)).json()
        if "error" in alone:
            assert entry == alone
        else:
            assert entry["label"] == alone["predictions"][0]["label"]
            assert entry["confidence"] == pytest.approx(alone["predictions"][0]["confidence"])
            assert len(entry["top_k"]) == 2
    shown = metrics(client)
    assert 'offramp_jobs_total{outcome="done"} 1.0' in shown
    assert 'offramp_job_images_total{outcome="ok"} 40.0' in shown
    assert 'offramp_job_images_total{outcome="invalid_image"} 2.0' in shown
    assert "offramp_jobs_unfinished 0.0" in shown


def test_a_server_without_a_directory_takes_no_jobs(bundle_path: Path) -> None:
    with running(Settings(bundles=(str(bundle_path),))) as client:
        assert_error(client.post(JOBS, content=b"x", headers=ZIP), 409, "jobs_disabled", "--jobs")
        assert_error(client.get(f"{JOBS}/1"), 409, "jobs_disabled")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?model=unknown", 404, "not_found"),
        ("?top_k=8", 400, "invalid_request"),
        ("?max_exit=9", 400, "invalid_request"),
        ("?priority=normal", 400, "invalid_request"),
        ("?callback=http://example.org/", 400, "invalid_request"),
    ],
)
def test_wrong_options_are_refused(
    client: Client, pngs: list[bytes], query: str, status: int, code: str
) -> None:
    assert_error(client.post(f"{JOBS}{query}", **as_zip({"a": pngs[0]})), status, code)


def test_wrong_bodies_are_refused_and_leave_nothing(
    settings: Settings, client: Client, pngs: list[bytes]
) -> None:
    for body, status, code in [
        ({"content": zipped({}), "headers": ZIP}, 400, "invalid_request"),
        ({"content": b"text", "headers": ZIP}, 415, "unsupported_type"),
        ({"content": pngs[0], "headers": {"Content-Type": "image/png"}}, 415, "unsupported_type"),
        ({"content": zipped({"a": pngs[0]})[:-9], "headers": ZIP}, 400, "invalid_request"),
    ]:
        assert_error(client.post(JOBS, **body), status, code)
        assert left(settings) == set()
    assert_error(client.get(f"{JOBS}/unknown"), 404, "not_found")
    assert_error(client.delete(f"{JOBS}/unknown"), 404, "not_found")
    assert "offramp_jobs_bytes 0.0" in metrics(client)


def test_a_form_may_have_text_before_its_first_boundary(client: Client, pngs: list[bytes]) -> None:
    disposition = b'Content-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    body = b"A form follows.\r\n--x\r\n" + disposition + pngs[0] + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(JOBS, content=body, headers=headers).status_code == 202


def test_a_body_and_what_it_unpacks_to_are_bounded(settings: Settings, pngs: list[bytes]) -> None:
    with running(settings.model_copy(update={"job_max_bytes": 30_000})) as client:
        assert_error(client.post(JOBS, content=bytes(30_001), headers=ZIP), 413, "too_large")
        bomb = {str(number): bytes(10_000) for number in range(4)}
        assert_error(client.post(JOBS, **as_zip(bomb)), 413, "too_large", "30000")
        assert left(settings) == set()
        post(client, **as_zip({"a": pngs[0]}))


def test_a_deleted_job_is_gone(settings: Settings, client: Client, pngs: list[bytes]) -> None:
    id_ = post(client, **as_zip({str(n): pngs[n % 40] for n in range(500)}))
    assert client.delete(f"{JOBS}/{id_}").status_code == 204
    assert_error(client.get(f"{JOBS}/{id_}"), 404, "not_found")
    assert_error(client.get(f"{JOBS}/{id_}/results"), 404, "not_found")
    assert left(settings) == set()
    other = post(client, **as_zip({"a": pngs[0]}))
    assert wait_for(client.get, other, finished)["state"] == "done"
    assert 'offramp_jobs_total{outcome="deleted"} 1.0' in metrics(client)


def test_a_job_that_is_deleted_by_several_requests_counts_once(
    client: Client, pngs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    id_ = post(client, **as_zip({str(n): pngs[n % 40] for n in range(500)}))
    wait_for(client.get, id_, lambda answer: answer["state"] == "running")

    async def delete() -> list[int]:
        requests = (client.http.delete(f"{JOBS}/{id_}") for _ in range(3))
        return [answer.status_code for answer in await asyncio.gather(*requests)]

    assert client.runner.run(delete()) == [204] * 3
    assert 'offramp_jobs_total{outcome="deleted"} 1.0' in metrics(client)
    assert "cannot be deleted" not in caplog.text


def test_results_expire(settings: Settings, pngs: list[bytes]) -> None:
    with running(settings.model_copy(update={"jobs_keep_seconds": 0.4})) as client:
        id_ = post(client, **as_zip({"a": pngs[0]}))
        wait_for(client.get, id_, finished)
        assert len(rows_of(client.get, id_)) == 1
        time.sleep(0.4)
        assert_error(client.get(f"{JOBS}/{id_}"), 404, "not_found")
        end = time.monotonic() + 10
        while left(settings):
            client.get("/livez")
            assert time.monotonic() < end


def test_a_model_that_is_unloaded_fails_the_job(
    settings: Settings, bundle_path: Path, pngs: list[bytes], tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / "other", name="other")
    bundles = (str(bundle_path), str(other))
    with running(settings.model_copy(update={"bundles": bundles})) as client:
        files = as_zip({str(n): pngs[n % 40] for n in range(500)})
        id_ = post(client, "?model=other", **files)
        client.app.state.service.models.remove("other")
        job = wait_for(client.get, id_, finished)
        assert (job["state"], job["error"]["code"]) == ("failed", "not_found")
        assert job["done"] == len(rows_of(client.get, id_)) < 500


def test_one_image_that_fails_its_request_fails_alone(
    client: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage = Engine.run_stage

    def failing(engine: Engine, stage: int, inputs: Any) -> Any:
        # The first image is the darkest.
        if stage == 1 and inputs.reshape(len(inputs), -1).max(axis=1).min() < 13:
            raise RuntimeError("a fault")
        return run_stage(engine, stage, inputs)

    monkeypatch.setattr(Engine, "run_stage", failing)
    id_ = post(client, **as_zip({str(n): pngs[n] for n in (0, 20, 30)}))
    assert wait_for(client.get, id_, finished)["failed"] == 1
    rows = rows_of(client.get, id_)
    assert [row["predictions"][0].get("code") for row in rows] == ["internal", None, None]


def test_a_full_disk_is_503_and_leaves_nothing(
    settings: Settings, client: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(receiving, "write_request", full)
        answer = client.post(JOBS, **as_zip({"a": pngs[0]}))
        assert_error(answer, 503, "jobs_unavailable")
        assert answer.headers["Retry-After"] == "10"
    assert left(settings) == set()
    assert client.post(JOBS, **as_zip({"a": pngs[0]})).status_code == 202


def test_a_full_disk_delays_a_job(
    client: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 0.05)
    append, faults = Results.append, iter([True, True])

    def failing(results: Results, rows: Any) -> None:
        if next(faults, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        append(results, rows)

    monkeypatch.setattr(Results, "append", failing)
    id_ = post(client, **as_zip({str(n): pngs[n % 40] for n in range(100)}))
    assert wait_for(client.get, id_, finished)["state"] == "done"
    assert [row["image"] for row in rows_of(client.get, id_)] == list(range(100))
