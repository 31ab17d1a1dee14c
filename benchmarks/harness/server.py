"""Shared by the serving benchmarks: a server as a process, generated images, the machine's name."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from exports.bundle.manifest import InputSpec

ROOT = Path(__file__).parents[2]
START = ("-c", "import sys; from offramp.cli import main; sys.argv[0] = 'offramp'; main()")


@contextlib.contextmanager
def serving(
    *bundles: Path,
    cores: Sequence[int] = (),
    start: Sequence[str] = START,
    checkout: Path = ROOT,
    **settings: object,
) -> Iterator[tuple[int, int]]:
    """`offramp serve` with `bundles` and `settings` as a process, on `cores` alone if there are any: yields
    its port and process id. `start` are Python's arguments that run the command; the code is that of
    `checkout`."""
    command = [sys.executable, *start, "serve", "--port", "0", *map(str, bundles)]
    environment = {f"OFFRAMP_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        command,
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            **environment,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(checkout),
        },
        preexec_fn=pinned(cores),
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://[\d.]+:(\d+)", first)
        if found is None:
            raise RuntimeError(f"the server did not start: {first}")
        yield int(found.group(1)), process.pid
        process.send_signal(signal.SIGTERM)
        if process.wait(30) != 0:
            raise RuntimeError(f"the server ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def pinned(cores: Sequence[int]) -> Callable[[], None] | None:
    """A `preexec_fn` that pins a process to `cores`; None if there are none."""
    return (lambda: os.sched_setaffinity(0, cores)) if cores else None


def halves() -> tuple[list[int], list[int]]:
    """Separate cores for a server and for its load; both empty with a single core."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    middle = (len(cores) + 1) // 2
    return (cores[:middle], cores[middle:]) if len(cores) > 1 else ([], [])


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Runs the block, and threads that it starts, on `cores` alone if there are any."""
    before = os.sched_getaffinity(0) if cores else set()
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, before)


def generated_images(spec: InputSpec, count: int, seed: int = 0) -> list[bytes]:
    """PNG files of the network's input size: smooth images with increasing noise, so that confidences
    differ."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        small = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((spec.width, spec.height), Image.Resampling.BILINEAR)
        noise = random.normal(0, 60 * number / count, (spec.height, spec.width, 3))
        found.append(png(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)))
    return found


def png(pixels: np.ndarray) -> bytes:
    """Pixels uint8 [H, W, 3] as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def machine() -> str:
    """The processor, its cores and the runtime, in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}"
