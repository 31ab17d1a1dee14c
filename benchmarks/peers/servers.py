"""The servers compared with ours, each in the layouts that may be its best, and how one is started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.forms import FORMS
from benchmarks.harness.processes import end, free_port
from benchmarks.harness.server import ROOT
from benchmarks.harness.wire import Connection
from serving.settings import available_cores

BATCH = 16
# Seconds: until it answers, and until it is killed after it was asked to stop.
PATIENCE, GRACE = 120.0, 15.0
# PyTriton gives up when its parts do not find each other within a second.
STARTS = 3


@dataclass(frozen=True)
class Peer:
    """A server: what it is an instance of, the package whose version is told, its layout, what Python
    runs, where and in which form (`benchmarks.harness.forms`) it takes an image; `spread`: a process
    for every core, else a thread for every core in one; most images of a batch."""

    product: str
    package: str
    layout: str
    command: tuple[str, ...]
    address: str = "/classify"
    form: str = "offramp"
    spread: bool = True
    batch: int = 1

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.product}, {self.layout}"


def _bentoml(service: str) -> tuple[str, ...]:
    return ("-m", "bentoml", "serve", f"benchmarks.peers.bentoml_app:{service}")


PLAIN = ("-m", "benchmarks.peers.plain")
LITSERVE = ("-m", "benchmarks.peers.litserve_app")
PYTRITON = ("-m", "benchmarks.peers.pytriton_app")
PEERS = (
    Peer("FastAPI", "fastapi", "threads", PLAIN, spread=False),
    Peer("FastAPI", "fastapi", "processes", PLAIN),
    Peer("LitServe", "litserve", "one by one", LITSERVE),
    Peer("LitServe", "litserve", "batches", LITSERVE, batch=BATCH),
    Peer(
        *("LitServe", "litserve", "batches, plain queue"), (*LITSERVE, "--plain-queue"), batch=BATCH
    ),
    Peer("BentoML", "bentoml", "one by one", _bentoml("Single")),
    Peer("BentoML", "bentoml", "batches", _bentoml("Batched"), form="list", batch=BATCH),
    Peer(
        *("PyTriton", "nvidia-pytriton", "batches", PYTRITON),
        address="/v2/models/network/infer",
        form="tensor",
        batch=BATCH,
    ),
)


class StartError(RuntimeError):
    """A server did not begin to answer."""


@contextmanager
def started(
    peer: Peer, python: Path | str, model: Path, file: bytes, wait_ms: float
) -> Iterator[tuple[int, int]]:
    """`peer` serving what `write_model` wrote into `model`, run by `python`: its port and the id of its
    first process. It has answered for the image `file`; nobody shall wait for longer than `wait_ms`.

    Raises StartError, with what it printed last. At the end, nothing of it is left.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port, process = _start(peer, python, model, file, wait_ms, Path(folder))
        try:
            yield port, process.pid
        finally:
            end(process, GRACE)


def _start(
    peer: Peer, python: Path | str, model: Path, file: bytes, wait_ms: float, folder: Path
) -> tuple[int, subprocess.Popen[bytes]]:
    printed = folder / "printed"
    for _ in range(STARTS):
        port = free_port()
        command = [str(python), *peer.command]
        if "bentoml" in peer.command:
            command += ["--host", "127.0.0.1", "--port", str(port)]
        with printed.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_variables(peer, model, port, wait_ms, folder),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if asyncio.run(_answers(process, peer, port, file)):
                return port, process
        except BaseException:
            end(process, GRACE)
            raise
        end(process, GRACE)
    last = printed.read_text("utf-8", "replace").strip().splitlines()[-15:]
    raise StartError(f"{peer.name} does not answer:\n" + "\n".join(last))


def _variables(peer: Peer, model: Path, port: int, wait_ms: float, folder: Path) -> dict[str, str]:
    cores = available_cores()
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PEER_MODEL": str(model.absolute()),
        "PEER_PORT": str(port),
        "PEER_WORKERS": str(cores if peer.spread else 1),
        "PEER_THREADS": str(1 if peer.spread else cores),
        "PEER_BATCH": str(peer.batch),
        "PEER_WAIT_MS": str(wait_ms),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        # Triton's backend embeds libpython, and must find the one that belongs to this Python.
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or "",
    }


async def _answers(process: subprocess.Popen[bytes], peer: Peer, port: int, file: bytes) -> bool:
    """Whether it answers, before its process ends and within PATIENCE."""
    form = FORMS[peer.form]
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            async with asyncio.timeout(5):
                connection = await Connection.open("127.0.0.1", port)
                try:
                    body = form.body(file)
                    reply = await connection.post(peer.address, body, form.kind, form.headers)
                finally:
                    connection.close()
            if reply.status == 200:
                form.read(reply)
                return True
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        await asyncio.sleep(0.2)
    return False
