"""Jobs in process: what is answered, refused, kept and removed."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.api.app import create_app
from serving.api.jobs import receiving
from serving.errors import OverCapacityError, SettingsError
from serving.inference.engine import Engine
from serving.jobs import runner
from serving.jobs.job import Results
from serving.jobs.store import JobStore
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.jobs.archives import ZIP, as_form, as_tar, as_tar_gz, as_zip, zipped
from tests.serving.jobs.conftest import JOBS, finished, post, rows_of, wait_for
from tests.serving.requests import CLASSIFY, as_raw, assert_error, metrics
from tests.serving.tiny_bundle import write_tiny_bundle


def left(settings: Settings) -> set[str]:
    """What is in the directory of jobs besides its lock."""
    assert settings.jobs is not None
    return {path.name for path in settings.jobs.iterdir()} - {".lock"}


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


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    assert settings.jobs is not None
    limits = {"jobs_max_unfinished": 2, "jobs_max_bytes": 1000}
    store = JobStore(settings.jobs, settings.model_copy(update=limits))
    yield store
    store.close()


def test_jobs_are_bounded_in_number_and_bytes(store: JobStore) -> None:
    with store.receiving(0) as first, store.receiving(400):
        with pytest.raises(OverCapacityError, match="as many jobs"), store.receiving(0):
            pass
        store.claim(first, 900)
        with pytest.raises(OverCapacityError, match="as many bytes"):
            store.claim(first, 101)
    with pytest.raises(OverCapacityError) as refused, store.receiving(1001):
        pass
    assert refused.value.headers["Retry-After"] == "10"
    with store.receiving(1000):
        assert store.size == 0


def test_results_make_room_only_as_bytes_come(settings: Settings, pngs: list[bytes]) -> None:
    limits = {"job_max_bytes": 5_000, "jobs_max_bytes": 10_000}
    with running(settings.model_copy(update=limits)) as client:
        first = post(client, **as_zip({"a": pngs[0]}))
        wait_for(client.get, first, finished)
        declared = {**ZIP, "Content-Length": "9999"}
        assert_error(client.post(JOBS, content=b"", headers=declared), 413, "too_large", "5000")
        declared = {**ZIP, "Content-Length": "5000"}
        assert_error(client.post(JOBS, content=b"x", headers=declared), 415, "unsupported_type")
        assert len(rows_of(client.get, first)) == 1


async def chunked(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_results_make_room_for_a_body_of_unknown_length(
    settings: Settings, pngs: list[bytes]
) -> None:
    files = {str(n): pngs[n] for n in range(4)}
    with running(settings.model_copy(update={"jobs_max_bytes": 10_000})) as client:
        for _ in range(8):
            answer = client.post(JOBS, content=chunked(zipped(files)), headers=ZIP)
            assert answer.status_code == 202, answer.text
            wait_for(client.get, answer.json()["id"], finished)
        assert_error(
            client.post(JOBS, content=chunked(bytes(10_001)), headers=ZIP), 429, "over_capacity"
        )
        assert len(rows_of(client.get, answer.json()["id"])) == 4


def test_results_make_room_for_an_archive_that_grows(settings: Settings, pngs: list[bytes]) -> None:
    files = {"zeros": bytes(6_000)}
    with running(settings.model_copy(update={"jobs_max_bytes": 10_000})) as client:
        first = post(client, **as_zip({str(n): pngs[n] for n in range(12)}))
        wait_for(client.get, first, finished)
        assert len(zipped(files)) < 200
        wait_for(client.get, post(client, **as_zip(files)), finished)
        assert_error(client.get(f"{JOBS}/{first}"), 404, "not_found")


def test_the_oldest_results_make_room(settings: Settings, pngs: list[bytes]) -> None:
    with running(settings.model_copy(update={"jobs_max_bytes": 10_000})) as client:
        ids = []
        for _ in range(8):
            ids.append(post(client, **as_zip({str(n): pngs[n] for n in range(4)})))
            wait_for(client.get, ids[-1], finished)
        statuses = [client.get(f"{JOBS}/{id_}").status_code for id_ in ids]
    assert statuses[0] == 404
    assert statuses[-1] == 200
    assert statuses == sorted(statuses, reverse=True)


def test_what_a_killed_server_left_is_removed(settings: Settings) -> None:
    assert settings.jobs is not None
    (settings.jobs / ".1234.part").mkdir(parents=True)
    (settings.jobs / ".upload-1234").write_bytes(b"half")
    JobStore(settings.jobs, settings).close()
    assert left(settings) == set()


def test_a_directory_has_one_server(settings: Settings, store: JobStore) -> None:
    assert settings.jobs is not None
    with pytest.raises(SettingsError, match="Another server"):
        JobStore(settings.jobs, settings)


def test_a_directory_that_cannot_be_used_is_a_setting_that_is_wrong(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="Jobs cannot be stored"):
        create_app(settings.model_copy(update={"jobs": tmp_path / "file"}))


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
