"""Jobs on the real server: progress, other requests meanwhile, and restarts."""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.servers import SERVE, Server, started
from tests.serving.conftest import encode
from tests.serving.jobs.archives import as_zip
from tests.serving.jobs.conftest import JOBS, Receiver, finished, receiver, rows_of, wait_for
from tests.serving.requests import CLASSIFY, as_raw

# Images of the job: the second number where a server was so fast that it finished before it was stopped.
COUNTS = (1200, 6000)
# Pixels of their side: decoding one takes milliseconds.
SIDE = 512


class FinishedTooEarlyError(Exception):
    """The job was done before its server was stopped, so nothing was left to resume."""


@contextmanager
def serving(bundle: Path, folder: Path, *flags: str) -> Iterator[tuple[Server, httpx.Client]]:
    command = (*SERVE, str(bundle), "--jobs", str(folder / "jobs"), *flags)
    with (
        started(command, folder, {"workers": 1, "drain_seconds": 0}) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        yield server, http


def test_a_job_goes_on_where_a_server_was_stopped_or_killed(
    bundle_path: Path, tmp_path: Path, pngs: list[bytes]
) -> None:
    large = [enlarged(png) for png in pngs]
    for count in COUNTS:
        with receiver() as host, contextlib.suppress(FinishedTooEarlyError):
            stop_kill_and_finish(bundle_path, tmp_path / str(count), large, host, count)
            return
    pytest.fail(f"a job of {COUNTS[-1]} images was done before its server was stopped")


def enlarged(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return encode(image.resize((SIDE, SIDE), Image.Resampling.NEAREST))


def stop_kill_and_finish(
    bundle_path: Path, folder: Path, pngs: list[bytes], host: Receiver, count: int
) -> None:
    folder.mkdir()
    files = {f"{number}.png": pngs[number % len(pngs)] for number in range(count)}
    flags = ("--job-callback-host", host.host)
    with serving(bundle_path, folder, *flags) as (server, http):
        query = f"?callback=http://{host.host}/done%3Fa=1"
        id_ = http.post(f"{JOBS}{query}", **as_zip(files)).json()["id"]
        done = []
        while not done or done[-1] < 100:
            # Meanwhile others are answered.
            assert http.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200
            done.append(http.get(f"{JOBS}/{id_}").json()["done"])
        assert done == sorted(done)
        if done[-1] == count:
            raise FinishedTooEarlyError
        partial = rows_of(http.get, id_)
        assert [row["image"] for row in partial] == list(range(len(partial)))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
    # A kill in the middle of a line.
    with (folder / "jobs" / id_ / "results.jsonl").open("ab") as file:
        file.write(b'{"image": 1')
    with serving(bundle_path, folder, *flags) as (server, http):
        before = done[-1]
        wait_for(http.get, id_, lambda answer: answer["done"] > before)
        assert server.terminate() == 0
    with serving(bundle_path, folder, *flags) as (server, http):
        if http.get(f"{JOBS}/{id_}").json()["finished"] is not None:
            raise FinishedTooEarlyError
        assert host.sent == []
        assert wait_for(http.get, id_, finished, within=120)["state"] == "done"
        rows = rows_of(http.get, id_)
        assert [(row["image"], row["file"]) for row in rows] == list(enumerate(files))
        labels = {(int(row["file"][:-4]) % len(pngs), str(row["predictions"])) for row in rows}
        assert len({number for number, _ in labels}) == len(pngs)
        job = wait_for(http.get, id_, lambda answer: answer["callback"] != "pending")
        assert job["callback"] == "delivered"
        ((path, sent),) = host.sent
        assert path == "/done?a=1"
        assert (sent["id"], sent["state"], sent["done"]) == (id_, "done", count)
        assert server.terminate() == 0
        assert "Traceback" not in "".join(server.printed)
    with serving(bundle_path, folder, *flags) as (_, http):
        # Finished jobs are there as well, and their callback is not sent again.
        assert len(rows_of(http.get, id_)) == count
        assert http.get(f"{JOBS}/{id_}").json() == job
    assert len(host.sent) == 1
