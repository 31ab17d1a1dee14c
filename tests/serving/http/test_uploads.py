"""Bodies that have not arrived whole take a bounded amount of memory, all together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.service import Service
from serving.settings import Settings
from tests.serving.http.events import STREAM
from tests.serving.http.raw import post, whole_answer
from tests.serving.live import live
from tests.serving.stages import until

SIZE, MAX_BYTES = 30_000, 40_000
# Of each body at first: of two, it is too much.
SENT = 25_000
CLASSIFY = "/v1/classify"
IMAGE = "image/png"


@pytest.fixture
def server(bundle_path: Path, tmp_path: Path) -> Iterator[tuple[int, Service]]:
    settings = Settings(
        bundles=(bundle_path,),
        workers=1,
        max_body_bytes=SIZE,
        max_queue_bytes=MAX_BYTES,
        jobs=tmp_path / "jobs",
    )
    with live(settings) as found:
        yield found


def begin(port: int, path: str = CLASSIFY, kind: str = IMAGE, size: int = SIZE) -> socket.socket:
    """A connection that has sent the first SENT bytes of a body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    whole = post(bytes(SENT), size).replace(IMAGE.encode(), kind.encode())
    connection.sendall(whole.replace(CLASSIFY.encode(), path.encode()))
    return connection


def held(service: Service, size: int) -> None:
    """Wait until `size` bytes are counted."""
    found = service.uploads
    asyncio.run(until(lambda: found.held_bytes == size))


@pytest.mark.parametrize(
    ("path", "kind"), [(CLASSIFY, IMAGE), (CLASSIFY, "application/json"), (STREAM, IMAGE)]
)
def test_one_too_many_is_refused_until_another_has_arrived_or_gone(
    server: tuple[int, Service], path: str, kind: str
) -> None:
    port, service = server
    with begin(port, path, kind) as first:
        held(service, SENT)
        with begin(port, path, kind) as second:
            refused = whole_answer(second)
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            assert refused.headers["X-Request-ID"]
        first.sendall(bytes(SIZE - SENT))
        # The zeros are no image.
        assert whole_answer(first).status == 400
    held(service, 0)
    with begin(port, path, kind):
        held(service, SENT)
    held(service, 0)
    with begin(port, path, kind) as last:
        last.sendall(bytes(SIZE - SENT))
        assert whole_answer(last).status == 400
    counted = 'offramp_requests_total{model="tiny",outcome="over_capacity"} 1.0'
    assert counted in service.metrics.render().decode()


def test_the_body_of_a_job_goes_to_the_disk_and_is_not_counted(
    server: tuple[int, Service],
) -> None:
    port, _ = server
    size = 2 * MAX_BYTES
    with begin(port, "/v1/jobs", "application/zip", size) as job:
        job.sendall(bytes(size - SENT))
        assert whole_answer(job).status == 415
