"""The servers compared with ours, each in every layout that may be its best, and how they are started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.forms import FORMS
from benchmarks.harness.processes import end, free_port
from benchmarks.harness.server import ROOT, pinned
from benchmarks.harness.wire import Connection
from serving.settings import available_cores

MAX_BATCH = 16
START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 15.0
# PyTriton gives up if its processes do not find each other within a second.
START_ATTEMPTS = 3


@dataclass(frozen=True)
class Peer:
    """A server: the product, the package whose version is reported, its layout, the Python command, the path
    and the form (`benchmarks.harness.forms`) of a request; `spread`: a process per core, otherwise a thread
    per core in one process; the maximum batch size."""

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
CASCADE = ("-m", "benchmarks.peers.cascade_app")
PEERS = (
    Peer("FastAPI", "fastapi", "threads", PLAIN, spread=False),
    Peer("FastAPI", "fastapi", "processes", PLAIN),
    Peer("LitServe", "litserve", "one by one", LITSERVE),
    Peer("LitServe", "litserve", "batches", LITSERVE, batch=MAX_BATCH),
    Peer(
        *("LitServe", "litserve", "batches, plain queue"),
        (*LITSERVE, "--plain-queue"),
        batch=MAX_BATCH,
    ),
    Peer("BentoML", "bentoml", "one by one", _bentoml("Single")),
    Peer("BentoML", "bentoml", "batches", _bentoml("Batched"), form="list", batch=MAX_BATCH),
    Peer(
        *("PyTriton", "nvidia-pytriton", "batches", PYTRITON),
        address="/v2/models/network/infer",
        form="tensor",
        batch=MAX_BATCH,
    ),
    Peer("HTTP cascade", "fastapi", "a router and two servers", CASCADE),
)
# Serves the smaller network without exits.
STATIC = next(peer for peer in PEERS if peer.command == PLAIN and peer.spread)


class StartError(RuntimeError):
    """A server did not start to answer."""


@contextmanager
def started(
    peer: Peer,
    python: Path | str,
    model: Path,
    file: bytes,
    wait_ms: float,
    cores: Sequence[int] = (),
) -> Iterator[tuple[int, int]]:
    """`peer` serving what `write_model` wrote into `model`, run by `python`: its port and the id of its
    first process. It has answered for the image `file`; requests should wait at most `wait_ms`. It runs on
    `cores` alone if there are any.

    Raises StartError with its last output. At the end all its processes are stopped.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port, process = _start(peer, python, model, file, wait_ms, cores, Path(folder))
        try:
            yield port, process.pid
        finally:
            end(process, STOP_TIMEOUT_S)


def _start(
    peer: Peer,
    python: Path | str,
    model: Path,
    file: bytes,
    wait_ms: float,
    cores: Sequence[int],
    folder: Path,
) -> tuple[int, subprocess.Popen[bytes]]:
    printed = folder / "printed"
    for _ in range(START_ATTEMPTS):
        port = free_port()
        command = [str(python), *peer.command]
        if "bentoml" in peer.command:
            command += ["--host", "127.0.0.1", "--port", str(port)]
        with printed.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_variables(peer, model, port, wait_ms, len(cores) or available_cores(), folder),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pinned(cores),
            )
        try:
            if asyncio.run(_answers(process, peer, port, file)):
                return port, process
        except BaseException:
            end(process, STOP_TIMEOUT_S)
            raise
        end(process, STOP_TIMEOUT_S)
    last = printed.read_text("utf-8", "replace").strip().splitlines()[-15:]
    raise StartError(f"{peer.name} does not answer:\n" + "\n".join(last))


def _variables(
    peer: Peer, model: Path, port: int, wait_ms: float, cores: int, folder: Path
) -> dict[str, str]:
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
        # Triton's backend embeds libpython and must find that of this Python.
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or "",
    }


async def _answers(process: subprocess.Popen[bytes], peer: Peer, port: int, file: bytes) -> bool:
    """Whether it answers, before its process ends and within START_TIMEOUT_S."""
    form = FORMS[peer.form]
    until = time.monotonic() + START_TIMEOUT_S
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
