"""What a request costs the server besides decoding and stages, and a lone one beside plain FastAPI.

    python -m benchmarks.hot_path [--against CHECKOUT] [--data DATA]

Server and load run on a core each. CPU time is measured, not wall time, so other work on the machine hardly
matters: the server's of a request, less that of decoding and of onnxruntime, with 32 busy connections and
with one; and the load generator's own. `--against` measures the server of another checkout in turns with
this one. The latency that the server adds to a lone request at full depth is compared with what FastAPI and
uvicorn add around one session of the same network (`benchmarks.peers.plain`), one request on each in turn.
CPU times are medians of `--repeats` turns.
With `--photos` the requests are the photographs of a folder in place of the bundle's test split.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.docs import table
from benchmarks.harness.generator import load
from benchmarks.harness.images import Images, add_photos, images_for, label
from benchmarks.harness.processes import cpu, main_thread_cpu
from benchmarks.harness.server import ROOT, halves, machine, on_cores, serving
from benchmarks.hot_path import clocked
from benchmarks.hot_path.lone import medians_in_turns
from benchmarks.peers.model import FullNetwork
from benchmarks.peers.networks import write_model
from benchmarks.peers.servers import PEERS, started
from benchmarks.serving import InProcess
from benchmarks.threads import take_turns
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100
from serving.inference.engine import Engine

CONNECTIONS = (32, 1)
# Of each server, to measure lone ones.
LONE_REQUESTS = 500
HEAD = (
    *("server", "connections", "requests/s", "CPU, ms a request", "besides decode and stages"),
    *("event loop", "runs of stages a request", "generator"),
)
LONE = ("a lone request", "p50, ms", "in process, ms", "added, ms")
FULL_DEPTH = "/v1/classify?top_k=1&mode=exit"


@dataclass(frozen=True)
class Clocked:
    """A running server: its port, its process, and the file of its clocks."""

    port: int
    process: int
    clocks: Path

    def spent(self) -> np.ndarray:
        """CPU seconds so far, in all and of the event loop's thread, then those of `read_clocks`."""
        seconds = (cpu(self.process), main_thread_cpu(self.process))
        return np.array([*seconds, *clocked.read_clocks(self.clocks)])


@contextlib.contextmanager
def clocked_server(bundle: Bundle, checkout: Path, clocks: Path) -> Iterator[Clocked]:
    """The server of `checkout` with a clock around decoding and stages, on its half of the cores."""
    start = ("-P", clocked.__file__, str(clocks))
    cores = halves()[0]
    # Other settings would measure several workers, or refusals.
    settings = {"workers": 1, "max_queue_ms": 10_000}
    with serving(bundle.path, cores=cores, start=start, checkout=checkout, **settings) as found:
        yield Clocked(*found, clocks)


def turn(server: Clocked, images: Images, connections: int, seconds: float) -> dict[str, float]:
    """One measurement: milliseconds of CPU a request by part, and requests a second."""
    options = ("--closed", str(connections))
    before = server.spent()
    report = load(server.port, images.packed, seconds, *options, cores=halves()[1])
    total, loop, decode, stages, _, runs = server.spent() - before
    answered = report["statuses"].get("200", 0)
    if answered != report["offered"]:
        raise RuntimeError(f"not every request was answered: {report['statuses']}")
    each = 1000 / answered
    return {
        "rate": answered / report["seconds"],
        "cpu": each * total,
        "besides": each * (total - decode - stages),
        "loop": each * loop,
        "decode": each * decode,
        "stages": each * stages,
        "runs": runs / answered,
        "generator": each * report["cpu_s"],
        "p50": float(np.median(report["latencies"])),
    }


def in_process(bundle: Bundle, images: Images, plain: Path) -> dict[str, float]:
    """Median milliseconds of decoding one image and classifying it at full depth: by our stages, and by plain
    FastAPI's session. On the servers' half of the cores."""
    engine, network = Engine(bundle), FullNetwork(plain)
    files = itertools.cycle(images.files)
    full = bundle.policy.override(mode="exit", max_exit=engine.exits)
    works: dict[str, Callable[[], object]] = {
        "this": InProcess(engine, full, images.files),
        "FastAPI": lambda: network.predict([network.decode(next(files))]),
    }
    with on_cores(halves()[0]):
        found = take_turns(works, 200)
    return {name: 1000 * seconds for name, seconds in found.items()}


@contextlib.contextmanager
def plain_server(plain: Path, file: bytes) -> Iterator[int]:
    """FastAPI and uvicorn around the model in `plain`, on the servers' half of the cores: its port."""
    with started(PEERS[0], sys.executable, plain, file, wait_ms=10_000) as (port, process):
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), halves()[0] or os.sched_getaffinity(0))
        yield port


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    bundle = load_bundle(arguments.bundle or CIFAR100)
    checkouts = {"this": ROOT}
    if arguments.against:
        checkouts = {"other": arguments.against.resolve(), "this": ROOT}
    turns: dict[tuple[str, int], list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        images = images_for(bundle, arguments, folder / "images.npz")
        servers = {
            name: stack.enter_context(clocked_server(bundle, path, folder / name))
            for name, path in checkouts.items()
        }
        for server in servers.values():
            load(server.port, images.packed, 0.5, "--closed", "32")
        for _ in range(arguments.repeats):
            for connections in CONNECTIONS:
                for name, server in servers.items():
                    found = turn(server, images, connections, arguments.seconds)
                    turns.setdefault((name, connections), []).append(found)
                    print(name, connections, found, file=sys.stderr, flush=True)
        plain = folder / "plain"
        write_model(bundle, plain)
        port = stack.enter_context(plain_server(plain, images.files[0]))
        ports = {
            **{name: (server.port, FULL_DEPTH) for name, server in servers.items()},
            "FastAPI": (port, PEERS[0].address),
        }
        alone = medians_in_turns(ports, images.files, halves()[1], LONE_REQUESTS)
        bound = in_process(bundle, images, plain)
    return {
        "machine": machine(),
        "bundle": label(bundle),
        "lone": [
            {"server": name, "p50": p50, "in_process": bound.get(name, bound["this"])}
            for name, p50 in alone.items()
        ],
        "seconds": arguments.seconds,
        "repeats": arguments.repeats,
        "rows": [
            {"server": name, "connections": connections, **_medians(found)}
            for (name, connections), found in turns.items()
        ],
    }


def section(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        [
            *(row["server"], row["connections"], f"{row['rate']:.0f}"),
            *(f"{row[key]:.3f}" for key in ("cpu", "besides", "loop")),
            *(f"{row['runs']:.2f}", f"{row['generator']:.3f}"),
        ]
        for row in result["rows"]
    ]
    alone = [
        [
            row["server"],
            *(f"{value:.2f}" for value in (row["p50"], row["in_process"])),
            f"{row['p50'] - row['in_process']:.2f}",
        ]
        for row in result["lone"]
    ]
    tables = [table(HEAD, rows), table(LONE, alone)]
    return "\n\n".join([*tables, f"{result['bundle']}, {result['machine']}\n"])


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    add_photos(parser)
    parser.add_argument("--seconds", type=float, default=3.0, help="of every turn")
    parser.add_argument("--repeats", type=int, default=5)
    result = run(parser.parse_args(argv))
    print(section(result))


if __name__ == "__main__":
    main()
