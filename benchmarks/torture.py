"""Checks every answer of a server under load, with cancelled requests, overload and slow clients.

    python -m benchmarks.torture                  # 50,000 requests from 64 connections
    python -m benchmarks.torture --overload       # and three times the load that it can answer
    python -m benchmarks.torture --slow           # and slow clients beside others

Requests have one image or several, in each of the three body forms, with different policies and priorities.
One in ten is cancelled at a random moment by closing its connection. Every answer must be the offline
engine's for that image, and every request that is not cancelled must be answered. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.harness.load import pack
from benchmarks.harness.networks import random_bundle
from benchmarks.harness.overload import overload
from benchmarks.harness.server import generated_images, halves, machine, serving
from benchmarks.harness.wire import Connection
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100
from serving.inference.engine import Engine, Prediction, decode

IMAGES = 200
CANCELLED_SHARE = 0.1
# This close to a threshold, the last bit of onnxruntime's sums decides.
TOLERANCE = 1e-5
QUERIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    ("threshold=0", {"threshold": 0.0}),
    ("threshold=2", {"threshold": 2.0}),
    ("mode=ensemble", {"mode": "ensemble"}),
    ("mode=exit&max_exit=2", {"mode": "exit", "max_exit": 2}),
    ("threshold=0.5&priority=low", {"threshold": 0.5}),
)


@dataclass
class Expected:
    """What the offline engine answers, by query and image."""

    policies: dict[str, Policy]
    answers: dict[str, list[Prediction]]

    @classmethod
    def of(cls, bundle: Bundle, files: list[bytes]) -> Expected:
        """Classify every file under every query, one image at a time."""
        engine = Engine(bundle)
        spec = bundle.manifest.input
        pixels = [decode(file, spec, spec.height * spec.width) for file in files]
        policies = {query: bundle.policy.override(**changes) for query, changes in QUERIES}
        answers = {
            query: [engine.classify(image[None], policy)[0] for image in pixels]
            for query, policy in policies.items()
        }
        return cls(policies, answers)

    def wrong(self, query: str, image: int, found: dict[str, Any]) -> str | None:
        """What is wrong with the prediction `found` for `image`, if anything is."""
        wanted = self.answers[query][image]
        if found["exit"] != wanted.exit:
            policy = self.policies[query]
            shallow = min(found["exit"], wanted.exit)
            measured = wanted.measured if wanted.exit == shallow else found["measure"]["value"]
            if (
                policy.mode == "early_exit"
                and abs(measured - policy.thresholds[shallow - 1]) < TOLERANCE
            ):
                return None
            return f"image {image}, {query!r}: exit {found['exit']}, not {wanted.exit}"
        close = abs(found["confidence"] - wanted.confidence) < TOLERANCE
        if found["index"] != wanted.index or not close or found["reason"] != wanted.reason:
            return f"image {image}, {query!r}: {found} is not {wanted}"
        return None


@dataclass
class Tally:
    """Requests by outcome, and what was wrong with answers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def torture(
    port: int, files: list[bytes], expected: Expected, requests: int, connections: int
) -> Tally:
    """`requests` requests from `connections` connections at once."""
    tally = Tally()
    todo = iter(range(requests))

    async def client(number: int) -> None:
        chance = random.Random(number)
        connection = await Connection.open("127.0.0.1", port)
        for _ in todo:
            ask = _one(connection, files, expected, chance, tally)
            if chance.random() >= CANCELLED_SHARE:
                await ask
                continue
            task = asyncio.create_task(ask)
            await asyncio.wait([task], timeout=chance.expovariate(1 / 0.01))
            if not task.done():
                tally.outcomes["cancelled"] += 1
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            connection.close()
            connection = await Connection.open("127.0.0.1", port)
        connection.close()

    await asyncio.gather(*(client(number) for number in range(connections)))
    return tally


async def _one(
    connection: Connection,
    files: list[bytes],
    expected: Expected,
    chance: random.Random,
    tally: Tally,
) -> None:
    query = chance.choice(QUERIES)[0]
    images = [chance.randrange(len(files))]
    if chance.random() < 0.2:
        images = [chance.randrange(len(files)) for _ in range(chance.randint(2, 8))]
    body, kind = _body([files[image] for image in images], chance)
    reply = await connection.post(f"/v1/classify?{query}", body, kind)
    tally.outcomes[str(reply.status)] += 1
    if reply.status != 200:
        tally.wrong.append(f"{reply.status}: {reply.body!r}")
        return
    predictions = reply.json()["predictions"]
    if len(predictions) != len(images):
        tally.wrong.append(f"{len(predictions)} predictions for {len(images)} images")
    for image, found in zip(images, predictions, strict=False):
        complaint = expected.wrong(query, image, found)
        if complaint is not None:
            tally.wrong.append(complaint)


def _body(files: list[bytes], chance: random.Random) -> tuple[bytes, str]:
    if len(files) == 1 and chance.random() < 0.8:
        return files[0], "image/png"
    if chance.random() < 0.5:
        images = [base64.b64encode(file).decode() for file in files]
        return orjson.dumps({"images": images}), "application/json"
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + file + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


async def beside_slow(port: int, files: list[bytes], seconds: float) -> dict[str, float]:
    """p99 in milliseconds of a fast client alone, and beside 64 clients that send single bytes and 64
    that never read."""

    async def fast() -> float:
        times = []
        connection = await Connection.open("127.0.0.1", port)
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            began = time.perf_counter()
            reply = await connection.post("/v1/classify", files[0])
            assert reply.status == 200, reply.body
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
        connection.close()
        return float(np.percentile(times, 99)) * 1000

    alone = await fast()
    stop = asyncio.Event()
    slow = [asyncio.create_task(_slow_client(port, files[0], stop, i % 2 == 0)) for i in range(128)]
    await asyncio.sleep(0.2)
    beside = await fast()
    stop.set()
    await asyncio.gather(*slow)
    return {"alone_p99_ms": alone, "beside_p99_ms": beside}


async def _slow_client(port: int, file: bytes, stop: asyncio.Event, sending: bool) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    writer.write(head + f"Content-Length: {len(file)}\r\n\r\n".encode())
    if not sending:
        writer.write(file)
    sent = 0
    while not stop.is_set():
        if sending and sent < len(file) - 1:
            writer.write(file[sent : sent + 1])
            sent += 1
        await asyncio.sleep(0.1)
    writer.transport.abort()


def main(argv: list[str] | None = None) -> None:
    """Run, print the result, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=CIFAR100)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of these")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    bundle = load_bundle(arguments.bundle)
    files = generated_images(bundle.manifest.input, IMAGES)
    expected = Expected.of(bundle, files)
    result: dict[str, Any] = {"machine": machine(), "bundle": bundle.manifest.name}
    # No request is refused here: 64 connections have at most 64 requests under way.
    with serving(arguments.bundle, max_queue_ms=60_000) as (port, _):
        began = time.perf_counter()
        tally = asyncio.run(
            torture(port, files, expected, arguments.requests, arguments.connections)
        )
        result["torture"] = {
            "outcomes": dict(tally.outcomes),
            "wrong": tally.wrong[:20],
            "seconds": round(time.perf_counter() - began, 1),
        }
    if arguments.slow:
        with serving(arguments.bundle, max_queue_ms=60_000) as (port, _):
            result["slow"] = asyncio.run(beside_slow(port, files, arguments.seconds))
    if arguments.overload:
        own, others = halves()
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / "images.npz"
            pack(files, packed)
            result["overload"] = {}
            # Refusals cost less relative to a large network.
            for one in (bundle, random_bundle(Path(folder) / "random")):
                with serving(one.path, cores=own) as (port, _):
                    found = overload(port, packed, arguments.seconds, others)
                result["overload"][one.manifest.name] = found
    text = orjson.dumps(result, option=orjson.OPT_INDENT_2).decode()
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", "utf-8")
    if tally.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
