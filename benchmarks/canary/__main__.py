"""Canaries under load: one fails, one is slow, one disagrees, and an equal one is promoted.

    OFFRAMP_DATA=data python -m benchmarks.canary          # two minutes

Requests come at a constant rate to a server of one worker; server and load have a core each. Some seconds
later a canary begins on a share of them. The faults are made by `benchmarks/canary/versions.py`. Writes a
JSON file and a picture; `--write-docs` puts them into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.canary.section import draw, figures, section
from benchmarks.canary.versions import disagrees, fails, is_slow, new_version
from benchmarks.gears.load import Load
from benchmarks.gears.simulation import trace
from benchmarks.harness.docs import DOCS, publish
from benchmarks.harness.images import label, test_images
from benchmarks.harness.server import halves, machine, on_cores, serving
from exports.bundle.reader import load_bundle, read_manifest
from exports.bundle.resolve import CIFAR100

RESULTS = Path(__file__).parents[1]
# The name of a canary, the stage with the fault, and the fault.
CANARIES = (
    ("fails", 2, fails),
    ("slow", 1, is_slow),
    ("disagrees", 1, disagrees),
    ("equal", 1, None),
)
MIN_AGREEMENT = 0.9
STABLE = "1"
POLL_S = 0.05
# So long that no request is refused for load.
MAX_QUEUE_MS = 9000


class VersionedLoad(Load):
    """Records the version of every answer."""

    def __init__(self, port: int, bodies: list[bytes], due: np.ndarray) -> None:
        super().__init__(port, "/v1/classify?top_k=1", bodies, due)
        self.versions = [""] * len(due)

    def answered(self, number: int, answer: dict[str, Any]) -> None:
        """Note the version that answered request `number`."""
        super().answered(number, answer)
        self.versions[number] = answer["version"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON and picture; or fill in the docs."""
    arguments = _arguments(argv)
    publish(arguments, run, section, "guide/canary.md", "canary")
    draw(json.loads(arguments.json.read_text("utf-8")), arguments.picture)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs."""
    server_cores, load_cores = halves()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = folder / "models"
        repository.mkdir()
        bundle = new_version(arguments.bundle, repository / "1-stable", STABLE, 1, None)
        for number, (kind, stage, fault) in enumerate(CANARIES, 2):
            new_version(
                arguments.bundle, repository / f"{number}-{kind}", str(number), stage, fault
            )
        images = test_images(load_bundle(bundle), arguments.data, folder / "images.npz")
        runs = []
        for number, (kind, _, _) in enumerate(CANARIES, 2):
            settings = {"workers": 1, "repository": repository, "max_queue_ms": MAX_QUEUE_MS}
            with serving(cores=server_cores, **settings) as (port, _), on_cores(load_cores):
                due = trace([(arguments.seconds, arguments.rate)], number)
                load = VersionedLoad(port, images.files, due)
                url = f"http://127.0.0.1:{port}/v1/models/{read_manifest(bundle).name}/canary"
                row = asyncio.run(_run(load, url, f"{number}-{kind}", arguments))
            runs.append({"canary": kind, **row})
            print(kind, row["outcome"], row["ended"], file=sys.stderr, flush=True)
    return {
        "machine": machine(),
        "bundle": label(load_bundle(arguments.bundle)),
        "images": "test split" if images.labels else "generated",
        "rate": arguments.rate,
        "share": arguments.share,
        "seconds": arguments.seconds,
        "min_agreement": MIN_AGREEMENT,
        "runs": runs,
    }


async def _run(
    load: VersionedLoad, url: str, bundle: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The load, and the canary from `bundle` meanwhile; seconds are since the load's begin."""
    began = time.perf_counter()
    answering = asyncio.create_task(load.run())
    await asyncio.sleep(arguments.before)
    plan = {
        "bundle": bundle,
        "share": arguments.share,
        "mirror_share": 1.0,
        "bounds": {"min_agreement": MIN_AGREEMENT},
    }
    await asyncio.to_thread(_call, url, "POST", plan)
    started = time.perf_counter() - began
    promote_at = began + arguments.seconds - arguments.before
    while (found := await asyncio.to_thread(_call, url, "GET"))["running"] is not None:
        if time.perf_counter() >= promote_at:
            found = await asyncio.to_thread(_call, f"{url}/promote", "POST")
            break
        await asyncio.sleep(POLL_S)
    ended = time.perf_counter() - began
    report = await answering
    (last,) = found["ended"]
    by_canary = [version not in ("", STABLE) for version in load.versions]
    return {
        "started": round(started, 2),
        "ended": round(ended, 2),
        "outcome": last["outcome"],
        "report": last["report"],
        **figures(report, by_canary, (started, ended, arguments.seconds)),
        # If the load itself was late, the run says little about the server.
        "late_p99_ms": report["late_p99_ms"],
    }


def _call(url: str, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, content, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=CIFAR100)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--before", type=float, default=5.0, help="seconds before the canary")
    parser.add_argument("--json", type=Path, default=RESULTS / "canary.json")
    parser.add_argument("--picture", type=Path, default=DOCS / "images" / "canary.png")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
