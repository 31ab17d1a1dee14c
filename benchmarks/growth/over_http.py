"""Growth over HTTP: rates and latencies of a server on its half of the cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.forms import BOUNDARY
from benchmarks.harness.generator import load
from benchmarks.harness.images import Images, test_images
from benchmarks.harness.load import pack
from benchmarks.harness.networks import random_bundle
from benchmarks.harness.server import halves, serving
from benchmarks.serving import FULL_DEPTH, MODES, address, closed, summary
from exports.bundle.reader import Bundle

BATCHES = (1, 2, 4, 8, 16, 32)
SIDES = (32, 64, 96, 128, 224)
SHARES = (0.1, 0.25, 0.5, 0.7, 0.85, 0.95, 1.05, 1.2, 1.5, 1.8, 2.2)
BATCH_CONNECTIONS = 4
NETWORK = "efficientnet-lite0"
# Requests wait for no longer; what would wait longer is refused.
MAX_WAIT_MS = 250


def by_cores(bundle: Bundle, images: Images, seconds: float) -> list[dict[str, Any]]:
    """Images a second at full depth of a server on 1, 2, … cores; the load has the others."""
    server_cores, load_cores = halves()
    found = []
    for number in range(1, len(server_cores) + 1):
        with serving(bundle.path, cores=server_cores[:number]) as (port, _):
            load(port, images.packed, seconds / 4, *closed(FULL_DEPTH), cores=load_cores)
            report = load(
                port, images.packed, seconds, *closed(FULL_DEPTH, 16 * number), cores=load_cores
            )
        found.append({"cores": number, "rate": len(report["latencies"]) / report["seconds"]})
    return found


def by_batch(bundle: Bundle, images: Images, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Images a second at full depth, by the number of images in a request."""
    server_cores, load_cores = halves()
    found = []
    with serving(bundle.path, cores=server_cores, max_images=max(BATCHES)) as (port, _):
        for size in BATCHES:
            packed = folder / f"batch-{size}.npz"
            files = images.files
            pack([multipart(files, first, size) for first in range(0, 32 * size, size)], packed)
            options = ("--form", "multipart", *closed(FULL_DEPTH, BATCH_CONNECTIONS))
            load(port, packed, seconds / 4, *options, cores=load_cores)
            report = load(port, packed, seconds, *options, cores=load_cores)
            rate = size * len(report["latencies"]) / report["seconds"]
            found.append({"batch": size, "rate": rate})
    return found


def by_side(seconds: float, folder: Path) -> list[dict[str, Any]]:
    """A network of random weights at several image sides: multiply-accumulates, images a second at full
    depth, and the latency of a lone request."""
    server_cores, load_cores = halves()
    found = []
    for side in SIDES:
        bundle = random_bundle(folder / f"side-{side}", NETWORK, None, side)
        images = test_images(bundle, None, folder / f"side-{side}.npz")
        with serving(bundle.path, cores=server_cores, max_queue_ms=10_000) as (port, _):
            load(port, images.packed, seconds / 4, *closed(FULL_DEPTH), cores=load_cores)
            busy = load(port, images.packed, seconds, *closed(FULL_DEPTH), cores=load_cores)
            lone = load(port, images.packed, seconds / 2, *closed(FULL_DEPTH, 1), cores=load_cores)
        found.append(
            {
                "side": side,
                "macs": bundle.manifest.exits[-1].macs,
                "rate": len(busy["latencies"]) / busy["seconds"],
                "lone_ms": float(np.median(lone["latencies"])),
            }
        )
    return found


def by_load(bundle: Bundle, images: Images, seconds: float) -> list[dict[str, Any]]:
    """Latency of Poisson load at shares of full depth's maximum, at full depth and with early exit."""
    server_cores, load_cores = halves()
    found = []
    with serving(bundle.path, cores=server_cores, max_queue_ms=MAX_WAIT_MS) as (port, _):
        load(port, images.packed, seconds / 4, *closed(FULL_DEPTH), cores=load_cores)
        busy = load(port, images.packed, seconds, *closed(FULL_DEPTH), cores=load_cores)
        most = len(busy["latencies"]) / busy["seconds"]
        for share in SHARES:
            for mode in ("full depth", "early exit"):
                options = ("--rate", str(share * most), "--path", address(MODES[mode]))
                report = load(port, images.packed, seconds, *options, cores=load_cores)
                row = summary(report, images.labels, seconds, MAX_WAIT_MS)
                figures = {key: row[key] for key in ("p50", "p99", "refused", "failed")}
                found.append({"mode": mode, "rate": share * most, **figures})
    return found


def multipart(files: list[bytes], first: int, size: int) -> bytes:
    """The body of a form of `size` files, from number `first` on; as `FORMS["multipart"]` announces."""
    parts = []
    for number in range(first, first + size):
        head = f'Content-Disposition: form-data; name="files"; filename="{number}.png"'
        content = files[number % len(files)]
        parts.append(
            f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/png\r\n\r\n".encode() + content
        )
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
