"""The directory of jobs: its limits, and what makes room for new jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from serving.api.app import create_app
from serving.errors import OverCapacityError, SettingsError
from serving.jobs.store import JobStore
from serving.settings import Settings
from tests.serving.conftest import running
from tests.serving.jobs.archives import ZIP, as_zip, zipped
from tests.serving.jobs.conftest import JOBS, finished, left, post, rows_of, wait_for
from tests.serving.requests import assert_error


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
