"""The proxy's configuration before two real servers, one of which is killed or stopped under load."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from subprocess import Popen

import httpx
import pytest

from serving.api.examples import sample_image
from tests.debian import require
from tests.deploy.hosts import PORT, free_port, names, process, seeing, server, wait_for

CONFIG = Path(__file__).parents[2] / "docker" / "proxy" / "haproxy.cfg"
REPLICAS = ("127.53.0.3", "127.53.0.4")
CONNECTIONS = 8
IMAGE = base64.b64decode(sample_image(32, 32))
TYPE = {"Content-Type": "image/png"}

pytestmark = pytest.mark.deploy


class Fleet:
    """Two replicas behind the proxy at `url`."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._place, self._stack = place, stack
        self._running: dict[str, Popen[bytes]] = {}
        # Only the port differs from the file that compose mounts.
        config = place / "haproxy.cfg"
        config.write_text(CONFIG.read_text().replace("bind :8080", f"bind 127.0.0.1:{port}"))
        resolv = stack.enter_context(names({"replica": REPLICAS}, place))
        for address in REPLICAS:
            self.start(address)
        command = seeing(resolv, require("haproxy", "haproxy"), "-f", config)
        stack.enter_context(process(command, place / "haproxy.log"))
        wait_for(f"{self.url}/readyz")

    def start(self, address: str) -> None:
        """Start the replica of `address` and wait until it is ready."""
        # However busy this machine is, no request is refused for its predicted wait.
        replica = server(address, self._place, OFFRAMP_MAX_QUEUE_MS="60000")
        self._running[address] = self._stack.enter_context(replica)
        wait_for(f"http://{address}:{PORT}/readyz")

    def signal(self, address: str, number: signal.Signals) -> Popen[bytes]:
        """Send a signal to a replica."""
        os.kill(self._running[address].pid, number)
        return self._running[address]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Both replicas run before and after every test."""
    with ExitStack() as stack:
        yield Fleet(tmp_path_factory.mktemp("fleet"), stack)


@asynccontextmanager
async def load(url: str) -> AsyncIterator[list[int]]:
    """Requests over several connections, one after the other on each; yields the statuses so far."""
    statuses: list[int] = []
    over = asyncio.Event()

    async def one() -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            while not over.is_set():
                answer = await client.post(f"{url}/v1/classify", content=IMAGE, headers=TYPE)
                statuses.append(answer.status_code)

    tasks = [asyncio.create_task(one()) for _ in range(CONNECTIONS)]
    yield statuses
    over.set()
    await asyncio.gather(*tasks)


async def until(reached: Callable[[], bool]) -> None:
    """Wait until `reached`, within a time that a busy machine keeps as well."""
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


def answered_by(address: str) -> float:
    """The number of requests that the replica at `address` has answered."""
    with urllib.request.urlopen(f"http://{address}:{PORT}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    ok = [
        line
        for line in lines
        if line.startswith("offramp_requests_total") and 'outcome="ok"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in ok)


@pytest.mark.serial
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_replica_that_ends_under_load_costs_no_request(fleet: Fleet, how: signal.Signals) -> None:
    first = REPLICAS[0]

    async def scenario() -> list[int]:
        before = {address: answered_by(address) for address in REPLICAS}
        async with load(fleet.url) as statuses:
            for address in REPLICAS:
                await until(lambda at=address: answered_by(at) > before[at])
            gone = fleet.signal(first, how)
            await until(lambda: gone.poll() is not None)
            assert gone.poll() == (0 if how is signal.SIGTERM else -how)
            # The proxy has the other one alone for a while.
            counted = len(statuses)
            await until(lambda: len(statuses) > counted + 50)
            await asyncio.to_thread(fleet.start, first)
            await until(lambda: answered_by(first) > 0)
        return statuses

    statuses = asyncio.run(scenario())
    assert len(statuses) > 100
    assert set(statuses) == {200}


def test_deadlines_that_clients_choose_keep_all_replicas_in_service(fleet: Fleet) -> None:
    with httpx.Client(base_url=fleet.url, headers=TYPE) as client:
        late = {
            client.post("/v1/classify?deadline_ms=0.000001", content=IMAGE).status_code
            for _ in range(20)
        }
        assert late == {504}
        before = {address: answered_by(address) for address in REPLICAS}
        answers = {client.post("/v1/classify", content=IMAGE).status_code for _ in range(20)}
    assert answers == {200}
    assert all(answered_by(address) > before[address] for address in REPLICAS)


def test_admin_routes_and_metrics_are_not_public(fleet: Fleet) -> None:
    with httpx.Client(base_url=fleet.url) as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/%6detrics").status_code == 404
        assert client.post("/v2/repository/index", json={}).status_code == 404
        assert client.put("/v1/models/any/policy", json={}).status_code == 404
        assert client.post("/v1/models/any/canary/promote").status_code == 404
        assert client.get("/v1/models").status_code == 200


def test_a_refusal_reaches_the_client_unchanged(fleet: Fleet) -> None:
    with httpx.Client(base_url=fleet.url) as client:
        refused = client.post("/v1/classify", content=b"no image", headers=TYPE)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_image")
