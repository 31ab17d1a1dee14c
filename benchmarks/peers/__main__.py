"""Compares our server with others, with the same weights on the same machine.

    OFFRAMP_DATA=data python -m benchmarks.peers --venv DIR

Ours answers with early exit, at full depth and from the last exit; the peers (`benchmarks.peers.servers`)
serve the full network in one onnxruntime session, or two networks as a cascade over HTTP, from a virtual
environment of their own in DIR. `--static` adds a smaller network without exits, served by FastAPI and by us.
With `--photos` the requests are the photographs of a folder in place of the bundle's test split.

Servers have half of the cores, the load the other half. For every bundle, in rounds with changing order,
`benchmarks.harness.load` sends to each: one request after the other, for the latency; from busy
connections, for the maximum rate, with the CPU time of all its processes; then Poisson load at shares of the
best peer's maximum, with latencies from when a request was due, and goodput (answers in time a second).
Medians of the rounds. Writes a JSON file and a picture; `--write-docs` puts that file's tables into
docs/design/peers.md, under its name, and measures nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.docs import DOCS, publish
from benchmarks.harness.images import add_photos, images_for, label
from benchmarks.harness.processes import cpu, tree
from benchmarks.harness.server import machine
from benchmarks.peers.contestants import Comparison, Contestant, Target
from benchmarks.peers.environment import environment, versions
from benchmarks.peers.networks import write_model
from benchmarks.peers.picture import draw
from benchmarks.peers.section import section
from benchmarks.peers.servers import CASCADE, PEERS, StartError
from benchmarks.serving import CONNECTIONS, accuracy, summary
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100

HERE = Path(__file__).parents[1]
# Statuses of refused requests: ours and BentoML's limit; Triton and BentoML's batcher; LitServe.
REFUSALS = ("429", "503", "504")
# Load before the first figure: caches, connections, BentoML's model of its own speed.
WARM_UP_S = 2.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON and the picture; or fill in the docs."""
    arguments = _arguments(argv)
    publish(
        arguments,
        run,
        partial(section, picture=arguments.picture.name),
        "design/peers.md",
        arguments.json.stem,
    )
    draw(json.loads(arguments.json.read_text("utf-8")), arguments.picture)


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
        paths = arguments.bundle or [CIFAR100]
        for number, (path, static) in enumerate(
            itertools.zip_longest(paths, arguments.static[: len(paths)])
        ):
            bundles = [load_bundle(one) for one in (path, static) if one is not None]
            images = images_for(bundles[0], arguments, Path(folder) / f"{number}.npz")
            models = [write_model(b, Path(folder) / f"{number}-{n}") for n, b in enumerate(bundles)]
            found["images"] = images.about
            comparison = Comparison(bundles, models, images, python, arguments)
            found["rows"] += compare(comparison, found["left_out"])
    return found


def compare(comparison: Comparison, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """The medians of every target for one bundle. Servers that do not start are added to `left_out`."""
    servers = [one for one in comparison.contestants if one.name not in left_out]
    base = best_peak(comparison, servers, left_out)
    seen: dict[Target, list[dict[str, Any]]] = {}
    for number in range(comparison.arguments.rounds):
        # Another order in each round.
        turn = number % len(servers)
        for one in servers[turn:] + servers[:turn]:
            with _starting(comparison, one, left_out) as running:
                if running is None:
                    continue
                for target in one.targets:
                    row = measure(comparison, target, *running, base)
                    seen.setdefault(target, []).append(row)
                    report = {"round": number + 1, "server": target.name, **row}
                    print(json.dumps(report), file=sys.stderr, flush=True)
    return [
        {
            "bundle": label(comparison.bundles[0]),
            "server": target.name,
            "product": target.product,
            **medians(seen[target]),
        }
        for one in servers
        if one.name not in left_out
        for target in one.targets
    ]


def best_peak(
    comparison: Comparison, servers: Sequence[Contestant], left_out: dict[str, str]
) -> float:
    """The highest maximum rate of a peer with the bundle's network at full depth, on which the offered rates
    are based."""
    found = []
    for one in servers:
        if one.peer is None or one.static or one.peer.command == CASCADE:
            continue
        with _starting(comparison, one, left_out) as running:
            if running is not None:
                (target,) = one.targets
                seconds = comparison.arguments.seconds
                comparison.ask(running[0], target, WARM_UP_S, "--closed", str(CONNECTIONS))
                found.append(busy(comparison, target, running[0], seconds)[0])
    return max(found)


@contextmanager
def _starting(
    comparison: Comparison, contestant: Contestant, left_out: dict[str, str]
) -> Iterator[tuple[int, int] | None]:
    """`Comparison.running`, or None if it does not start: it is added to `left_out`."""
    with ExitStack() as stack:
        running = None
        if contestant.name not in left_out:
            try:
                running = stack.enter_context(comparison.running(contestant))
            except StartError as error:
                print(error, file=sys.stderr, flush=True)
                left_out[contestant.name] = "does not start"
        yield running


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
    parser.add_argument(
        "--static",
        type=Path,
        action="append",
        default=[],
        help="a bundle of a smaller network, served without early exit; once per --bundle, in their order",
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--seconds", type=float, default=5.0, help="of every figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=(0.5, 0.8, 1.0, 1.5),
        help="rates offered, as shares of the maximum of the best peer",
    )
    parser.add_argument("--slo-ms", type=float, default=100.0, help="what counts as in time")
    add_photos(parser)
    parser.add_argument("--json", type=Path, default=HERE / "peers.json")
    parser.add_argument(
        "--picture", type=Path, help="by default named after the JSON file, in docs/images"
    )
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.picture is None:
        arguments.picture = DOCS / "images" / f"{arguments.json.stem}.png"
    if arguments.venv is None and not arguments.write_docs:
        parser.error("--venv says where the peers are, or shall be, installed")
    return arguments


if __name__ == "__main__":
    main()
