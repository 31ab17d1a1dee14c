"""Compares our server with others, with the same weights on the same machine.

    OFFRAMP_DATA=data python -m benchmarks.peers --venv DIR

Ours answers with early exit, at full depth and as the ensemble; the peers (`benchmarks.peers.servers`) serve
the full network in one onnxruntime session, from a virtual environment of their own in DIR. For every
bundle, in rounds with changing order, `benchmarks.harness.load` sends to each: one request after the other,
for the latency; from busy connections, for the maximum rate, with the CPU time of all its processes; then
Poisson load at shares of plain FastAPI's maximum, with latencies from when a request was due, and goodput
(answers in time a second). Medians of the rounds. Writes a JSON file; `--write-docs` puts it into
docs/design/peers.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.docs import publish
from benchmarks.harness.generator import load
from benchmarks.harness.images import Images, label, test_images
from benchmarks.harness.processes import cpu, tree
from benchmarks.harness.server import machine, serving
from benchmarks.peers.environment import environment, versions, write_model
from benchmarks.peers.section import section
from benchmarks.peers.servers import PEERS, PLAIN, Peer, StartError, started
from benchmarks.serving import CONNECTIONS, MODES, accuracy, address, summary
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import embedded

HERE = Path(__file__).parents[1]
# Statuses of refused requests: ours and BentoML's limit; Triton and BentoML's batcher; LitServe.
REFUSALS = ("429", "503", "504")
# Load before the first figure: caches, connections, BentoML's model of its own speed.
WARM_UP_S = 2.0


@dataclass(frozen=True)
class Target:
    """Something to measure at a running server: its name, path and form of requests."""

    name: str
    product: str
    address: str
    form: str


OURS = [
    Target(f"Offramp, {mode}", "Offramp", address(query), "offramp")
    for mode, query in MODES.items()
]


@dataclass(frozen=True)
class Comparison:
    """What all servers of one bundle are measured with."""

    bundle: Bundle
    images: Images
    model: Path
    python: Path
    arguments: argparse.Namespace

    @contextmanager
    def running(self, peer: Peer | None) -> Iterator[tuple[int, int]]:
        """Start `peer`, or our server: yields its port and first process. Requests may wait for half of the
        time limit."""
        wait_ms = self.arguments.slo_ms / 2
        if peer is None:
            with serving(self.bundle.path, max_queue_ms=wait_ms) as found:
                yield found
        else:
            file = self.images.files[0]
            with started(peer, self.python, self.model, file, wait_ms) as found:
                yield found

    def ask(self, port: int, target: Target, seconds: float, *options: str) -> dict[str, Any]:
        """The report of the load generator."""
        where = ("--path", target.address, "--form", target.form)
        return load(port, self.images.packed, seconds, *where, *options)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON; or fill in the docs."""
    publish(_arguments(argv), run, section, "design/peers.md", "peers")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    python = environment(arguments.venv)
    have = versions(python, sorted({peer.package for peer in PEERS} | {"onnxruntime"}))
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": have,
        **{name: getattr(arguments, name) for name in ("seconds", "rounds", "slo_ms")},
        "left_out": {peer.name: "not installed" for peer in PEERS if peer.package not in have},
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(arguments.bundle or [embedded()]):
            bundle = load_bundle(path)
            images = test_images(bundle, arguments.data, Path(folder) / f"{number}.npz")
            model = write_model(bundle, Path(folder) / str(number))
            found["images"] = "test split" if images.labels else "generated"
            comparison = Comparison(bundle, images, model, python, arguments)
            found["rows"] += compare(comparison, found["left_out"])
    return found


def compare(comparison: Comparison, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """The medians of every target for one bundle. Servers that do not start are added to `left_out`."""
    servers: list[Peer | None] = [None, *(peer for peer in PEERS if peer.name not in left_out)]
    base = plain_most(comparison)
    seen: dict[Target, list[dict[str, Any]]] = {}
    for number in range(comparison.arguments.rounds):
        # Another order in each round.
        turn = number % len(servers)
        for peer in servers[turn:] + servers[:turn]:
            if peer is not None and peer.name in left_out:
                continue
            try:
                with comparison.running(peer) as (port, process):
                    for target in targets(peer):
                        row = measure(comparison, target, port, process, base)
                        seen.setdefault(target, []).append(row)
                        report = {"round": number + 1, "server": target.name, **row}
                        print(json.dumps(report), file=sys.stderr, flush=True)
            except StartError as error:
                assert peer is not None
                print(error, file=sys.stderr, flush=True)
                left_out[peer.name] = "does not start"
    kept = [target for target in seen if target.name not in left_out]
    return [
        {
            "bundle": label(comparison.bundle),
            "server": target.name,
            "product": target.product,
            **medians(seen[target]),
        }
        for target in sorted(kept, key=[t for peer in (None, *PEERS) for t in targets(peer)].index)
    ]


def plain_most(comparison: Comparison) -> float:
    """The maximum rate of plain FastAPI over its layouts, on which the offered rates are based."""
    found = []
    for peer in PEERS:
        if peer.command == PLAIN:
            with comparison.running(peer) as (port, _):
                (target,) = targets(peer)
                found.append(busy(comparison, target, port, comparison.arguments.seconds)[0])
    return max(found)


def targets(peer: Peer | None) -> list[Target]:
    """What is measured at `peer`, or at our server."""
    if peer is None:
        return OURS
    return [Target(peer.name, peer.product, peer.address, peer.form)]


def measure(
    comparison: Comparison, target: Target, port: int, process: int, base: float
) -> dict[str, Any]:
    """One target once: one request after the other, with busy connections, then at each share of `base`
    answers a second."""
    arguments, labels = comparison.arguments, comparison.images.labels
    comparison.ask(port, target, min(arguments.seconds, WARM_UP_S), "--closed", str(CONNECTIONS))
    alone = comparison.ask(port, target, min(arguments.seconds, WARM_UP_S), "--closed", "1")
    before = spent(process)
    most, report = busy(comparison, target, port, arguments.seconds)
    row: dict[str, Any] = {
        "alone_ms": statistics.median(alone["latencies"]),
        "most": most,
        "cpu_ms": 1000 * (spent(process) - before) / max(1, len(report["latencies"])),
        "accuracy": accuracy(report, labels),
        "open": [],
    }
    for share in arguments.shares:
        options = ("--rate", str(share * base))
        report = comparison.ask(port, target, arguments.seconds, *options)
        found = summary(report, labels, arguments.seconds, arguments.slo_ms, REFUSALS)
        row["open"].append({"rate": share * base, **found})
    row["goodput"] = max(one["goodput"] for one in row["open"])
    return row


def busy(
    comparison: Comparison, target: Target, port: int, seconds: float
) -> tuple[float, dict[str, Any]]:
    """Answers a second with busy connections, and the generator's report."""
    report = comparison.ask(port, target, seconds, "--closed", str(CONNECTIONS))
    return len(report["latencies"]) / report["seconds"], report


def spent(process: int) -> float:
    """CPU seconds so far of `process` and its descendants."""
    return sum(map(cpu, tree(process)))


def medians(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure over the rounds, and the range of the first."""
    found = _medians([{k: v for k, v in row.items() if k != "open"} for row in rows])
    found["most_range"] = [min(row["most"] for row in rows), max(row["most"] for row in rows)]
    found["open"] = [_medians(alike) for alike in zip(*(row["open"] for row in rows), strict=True)]
    return found


def _medians(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: None if None in (values := [row[key] for row in rows]) else statistics.median(values)
        for key in rows[0]
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--venv", type=Path, help="the peers' environment; made where it is missing"
    )
    parser.add_argument("--bundle", type=Path, action="append", help="once per bundle")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--seconds", type=float, default=5.0, help="of every figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=(0.5, 0.8, 1.0, 1.5),
        help="rates offered, as shares of what plain FastAPI manages",
    )
    parser.add_argument("--slo-ms", type=float, default=100.0, help="what counts as in time")
    parser.add_argument("--json", type=Path, default=HERE / "peers.json")
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.venv is None and not arguments.write_docs:
        parser.error("--venv says where the peers are, or shall be, installed")
    return arguments


if __name__ == "__main__":
    main()
