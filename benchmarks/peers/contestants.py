"""What is measured: our server and the peers, with the bundle's network or a smaller one without exits."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.generator import load
from benchmarks.harness.images import Images
from benchmarks.harness.server import halves, serving
from benchmarks.peers.servers import PEERS, STATIC, Peer, started
from benchmarks.serving import MODES, address
from exports.bundle.reader import Bundle


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
OUR_STATIC = Target(
    "Offramp, static network", "Static network", address(MODES["last exit"]), "offramp"
)


@dataclass(frozen=True)
class Contestant:
    """A peer, or our server where that is None, with the network of the bundle or the `static` one."""

    peer: Peer | None
    static: bool = False

    @property
    def name(self) -> str:
        """In messages and in the list of those left out."""
        name = "Offramp" if self.peer is None else self.peer.name
        return f"{name}, static network" if self.static else name

    @property
    def targets(self) -> list[Target]:
        """What is measured at it."""
        if self.peer is None:
            return [OUR_STATIC] if self.static else OURS
        product = "Static network" if self.static else self.peer.product
        return [Target(self.name, product, self.peer.address, self.peer.form)]


@dataclass(frozen=True)
class Comparison:
    """What all servers of one bundle are measured with: the bundles and what `write_model` wrote of them, the
    second of the smaller network without exits, if there is one."""

    bundles: Sequence[Bundle]
    models: Sequence[Path]
    images: Images
    python: Path
    arguments: argparse.Namespace

    @property
    def contestants(self) -> list[Contestant]:
        """All, ours first."""
        found = [Contestant(None), *map(Contestant, PEERS)]
        if len(self.bundles) > 1:
            found += [Contestant(None, static=True), Contestant(STATIC, static=True)]
        return found

    @contextmanager
    def running(self, contestant: Contestant) -> Iterator[tuple[int, int]]:
        """Start `contestant`: yields its port and first process. Requests may wait for half of the
        time limit."""
        wait_ms, cores = self.arguments.slo_ms / 2, halves()[0]
        if contestant.peer is None:
            path = self.bundles[contestant.static].path
            with serving(path, cores=cores, max_queue_ms=wait_ms) as found:
                yield found
        else:
            model, file = self.models[contestant.static], self.images.files[0]
            with started(contestant.peer, self.python, model, file, wait_ms, cores) as found:
                yield found

    def ask(self, port: int, target: Target, seconds: float, *options: str) -> dict[str, Any]:
        """The report of the load generator."""
        where = ("--path", target.address, "--form", target.form)
        return load(port, self.images.packed, seconds, *where, *options, cores=halves()[1])
