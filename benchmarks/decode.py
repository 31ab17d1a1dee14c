"""Decoding and resizing JPEGs: Pillow as it is served, Pillow without reduced decoding, and simplejpeg.

    python -m benchmarks.decode [--seconds 2] [--json decode.json]

The files are smooth noise at quality 90, so that no photo is needed. simplejpeg (pip install
simplejpeg) is left out if it is not installed. Its resize is Pillow's, after
`min_height` and `min_width`; only the decoder differs. `difference` is the mean absolute difference from
Pillow's full decode, in grey levels of 255.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from offramp.images import MIN_DRAFT_SCALE, ImageSpec, Pixels, decode

SOURCES = {
    **{"32": (32, 32), "224": (224, 224), "640x480": (640, 480), "720": (720, 720)},
    "1080p": (1920, 1080),
}
TARGETS = (32, 224)
MAX_PIXELS = 50_000_000
ROUNDS = 7


def source(width: int, height: int) -> bytes:
    """A JPEG with structure at all scales, as expensive to decode as a photo."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), dtype=np.float32)
    for share in (1, 4, 16, 64):
        shape = (max(1, height // share), max(1, width // share), 3)
        part = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        total += np.asarray(part.resize((width, height), Image.Resampling.BICUBIC)) * share**0.5
    content = io.BytesIO()
    scaled = 255 * (total - total.min()) / (total.max() - total.min())
    Image.fromarray(scaled.astype(np.uint8)).save(content, "JPEG", quality=90)
    return content.getvalue()


def served(content: bytes, side: int) -> Pixels:
    """As the server decodes: Pillow, at a reduced scale where possible."""
    return decode(content, ImageSpec(side, side, "stretch"), MAX_PIXELS)


def pillow_full(content: bytes, side: int) -> Pixels:
    """Pillow, decoding at full scale."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def simplejpeg(content: bytes, side: int) -> Pixels:
    """simplejpeg at a reduced scale where possible, then Pillow's resize."""
    import simplejpeg

    least = {
        "min_height": MIN_DRAFT_SCALE * side,
        "min_width": MIN_DRAFT_SCALE * side,
        "min_factor": 1,
    }
    pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", **least)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def time_each(
    ways: dict[str, Callable[[bytes, int], Pixels]], content: bytes, side: int, seconds: float
) -> dict[str, float]:
    """Milliseconds a call, the median of rounds in which the ways alternate."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            way(content, side)
            calls, started = 0, time.perf_counter()
            while (took := time.perf_counter() - started) < seconds / ROUNDS:
                way(content, side)
                calls += 1
            found[name].append(1000 * took / max(calls, 1))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measure, print a table and optionally write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each way of each case")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    ways: dict[str, Callable[[bytes, int], Pixels]] = {
        "served": served,
        "pillow full": pillow_full,
    }
    if importlib.util.find_spec("simplejpeg"):
        ways["simplejpeg"] = simplejpeg
    rows = []
    print(f"{'case':16}" + "".join(f"{name:>14}" for name in ways) + "   ms; difference")
    for name, size in SOURCES.items():
        content = source(*size)
        for side in TARGETS:
            times = time_each(ways, content, side, options.seconds)
            full = pillow_full(content, side).astype(int)
            apart = {
                way: float(np.abs(call(content, side) - full).mean()) for way, call in ways.items()
            }
            rows.append({"source": name, "target": side, "ms": times, "difference": apart})
            line = "".join(f"{value:14.3f}" for value in times.values())
            differences = ", ".join(f"{value:.2f}" for value in apart.values())
            print(f"{name + ' -> ' + str(side):16}{line}   {differences}", flush=True)
    if options.json:
        figures = {"machine": platform.processor() or platform.machine(), "rows": rows}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
