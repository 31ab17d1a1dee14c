"""Sends mutated images and bodies to the real server.

    python -m benchmarks.fuzz [--minutes 10] [--seed 0] [--keep fuzz-failures]

Starts a server with a small network, mutates the corpus of tests/serving/hostile at random, and checks for
every request what the tests check: one answer, 200 or 4xx, within a time limit, and bounded memory. Failing
bodies are written to `--keep`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich.progress import Progress, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.servers import started
from tests.serving.hostile import bodies, images
from tests.serving.hostile.probe import MIB, Watch
from tests.serving.server_command import command
from tests.serving.tiny_bundle import write_tiny_bundle

MAX_GROWTH_BYTES = 300 * MIB
PNG = {"Content-Type": "image/png"}
SPECIAL = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"-1", b"[", b"{", b'"')


def mutate(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`content` with one to eight random edits: bytes changed, removed, repeated or taken from `others`."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            new = rng.choice(SPECIAL)
            data[at : at + len(new)] = new
        elif kind == 2:
            del data[at : at + rng.randint(1, 64)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randint(1, 64)] * rng.choice((1, 1, 2, 50))
        elif kind == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + rng.randint(1, 256)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 16))
    return bytes(data[:900_000])


def main() -> int:
    """Fuzz; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    small = [content for _, content in (*images.bombs(), *images.burdens(), *images.oddities())]
    files = [*images.honest().values(), *(c for c in small if len(c) < 100_000)]
    requests = [request for request in bodies.requests() if len(request[3]) < 100_000]
    requests += [("image", bodies.CLASSIFY, PNG, content) for content in files]
    texts = [request[3] for request in requests]
    failures = sent = 0
    with (
        tempfile.TemporaryDirectory() as place,
        Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn()) as progress,
    ):
        bundle = write_tiny_bundle(Path(place) / "tiny")
        with (
            started(command(bundle), Path(place)) as server,
            httpx.Client(base_url=server.url, timeout=60) as http,
        ):
            watch = Watch(http, server.process.pid)
            watch.send("warm-up", bodies.CLASSIFY, PNG, images.honest()["png"])
            limit = watch.resident() + MAX_GROWTH_BYTES
            task = progress.add_task("fuzzing", total=60 * options.minutes)
            began = time.monotonic()
            while (passed := time.monotonic() - began) < 60 * options.minutes:
                name, path, headers, content = rng.choice(requests)
                content = mutate(content, texts, rng)
                try:
                    watch.send(name, path, headers, content)
                    assert watch.resident() < limit, "memory"
                except (AssertionError, httpx.HTTPError, ValueError) as error:
                    failures += 1
                    options.keep.mkdir(parents=True, exist_ok=True)
                    kept = options.keep / f"{failures:04}.bin"
                    kept.write_bytes(content)
                    progress.console.print(f"{kept}: {name} at {path} {headers}: {error!r}")
                sent += 1
                progress.update(task, completed=passed, description=f"{sent} requests")
            faults = sum("Traceback" in line for line in server.printed)
            print(
                f"{sent} requests with seed {options.seed}: {failures} failures, {faults} faults "
                f"logged, memory at most {watch.peak() / MIB:.0f} MiB, "
                f"{'healthy' if watch.is_healthy() else 'not healthy'} at the end"
            )
            return int(failures > 0 or faults > 0 or not watch.is_healthy())


if __name__ == "__main__":
    sys.exit(main())
