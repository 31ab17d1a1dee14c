"""Measures training: our epoch against a plain loop's on the same device, and the parts of our time.

    python -m benchmarks.epoch

Besides the loop with the teacher in every step, ours runs on cached views: "cached" is a second student's
epoch, which draws the view's pixels and reads the teacher's logits, "filling" a first student's, which
computes and stores them before it trains on them.

A student learns exit by exit from a teacher of the same shape (OtO, both with fresh weights, which do not
change the time). The plain loop has torchvision's transforms in a DataLoader's workers, float32 and the
default memory layout, and runs in a process of its own, where the C library gives freed memory back; its
workers are started and its first batches made before its clock starts. The loops alternate `--repeats` times,
each for `--steps` batches; medians are reported. Images are random bytes. Writes a JSON file; `--write-docs`
puts the JSON files into docs/guide/training.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.epoch.our_loop import CachedLoop, OurLoop
from benchmarks.epoch.own_process import in_own_process
from benchmarks.epoch.plain_loop import CLASSES, PlainLoop
from benchmarks.harness.docs import DOCS, fill_in
from training.data.dataset import Split
from training.distributed import choose_device

HERE = Path(__file__).parents[1]
NAME = "epoch"
# CIFAR-100's training images without 5,000 held-out ones.
EPOCH_IMAGES = 45_000
TITLES = {
    "cached": "ours, cached views: from the second student on",
    "filling": "ours, cached views: the first student, which fills them",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    arguments = _arguments(argv)
    if arguments.write_docs:
        write_docs()
        return
    device = choose_device(arguments.device)
    images = random_images(arguments.batch * arguments.steps, arguments.side)
    with tempfile.TemporaryDirectory() as place:
        result = measure(arguments, device, images, Path(place))
    path = arguments.json or HERE / f"epoch-{device.type}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(section([result]))


def measure(
    arguments: argparse.Namespace, device: torch.device, images: Split, place: Path
) -> dict[str, Any]:
    """The result as it is written; views are cached in directory `place`."""
    with in_own_process(partial(PlainLoop, arguments, device, images)) as plain:
        return _measure(arguments, device, images, place, plain)


def _measure(
    arguments: argparse.Namespace,
    device: torch.device,
    images: Split,
    place: Path,
    plain: Callable[[], float],
) -> dict[str, Any]:
    contenders: dict[str, Callable[[], float]] = {
        "plain": plain,
        "ours": OurLoop(arguments, device, images).seconds,
        "cached": CachedLoop(arguments, device, images, place / "cached").seconds,
        "filling": CachedLoop(arguments, device, images, place / "filling", fills=True).seconds,
    }
    if arguments.compile:
        contenders["compiled"] = OurLoop(arguments, device, images, compiled=True).seconds
    load = os.getloadavg()[0]
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.repeats):
        for name, seconds in contenders.items():
            seen[name].append(seconds() / arguments.steps * 1e3)
    return {
        "machine": machine(device),
        "load_before": round(load, 2),
        "network": f"{arguments.network} of width {arguments.width}, {arguments.side} pixels",
        "batch": arguments.batch,
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "workers": arguments.workers,
        "ms_a_batch": {name: round(statistics.median(all_), 1) for name, all_ in seen.items()},
        "split_ms": OurLoop(arguments, device, images).split(),
    }


def random_images(count: int, side: int) -> Split:
    """`count` images of random bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Split(pixels, rng.integers(0, CLASSES, count))


def machine(device: torch.device) -> str:
    """The device, the processor, its cores and torch, in one line."""
    name = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    place = f"{torch.cuda.get_device_name(device)} beside " if device.type == "cuda" else ""
    return f"{place}{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def section(results: Sequence[dict[str, Any]]) -> str:
    """`results` as Markdown."""
    if not results:
        return "Not measured yet.\n"
    return "\n".join(_one(result) for result in results)


def _one(result: dict[str, Any]) -> str:
    times, split = result["ms_a_batch"], result["split_ms"]
    epoch_batches = EPOCH_IMAGES // result["batch"]
    lines = [
        f"{result['machine']}; {result['network']}, teacher of the same shape, batches of "
        f"{result['batch']}: medians of {result['repeats']} turns of {result['steps']} batches, "
        f"{result['workers']} DataLoader workers.",
        "",
        f"| loop | ms a batch | s an epoch of {EPOCH_IMAGES:,} images | against plain |",
        "|---|---|---|---|",
        *(
            f"| {TITLES.get(name, name)} | {ms:.1f} | {ms * epoch_batches / 1e3:.0f} | "
            f"{times['plain'] / ms:.2f} x |"
            for name, ms in times.items()
        ),
        "",
        "| part of ours | ms a batch |",
        "|---|---|",
        *(f"| {part} | {ms:.1f} |" for part, ms in split.items()),
    ]
    return "\n".join(lines) + "\n"


def written_results() -> list[dict[str, Any]]:
    """The results in the JSON files of benchmarks/."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(HERE.glob("epoch-*.json"))]


def write_docs() -> None:
    """Write the section between its markers in docs/guide/training.md."""
    fill_in(DOCS / "guide" / "training.md", NAME, section(written_results()))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--json", type=Path, help="default: benchmarks/epoch-DEVICE.json")
    parser.add_argument(
        "--write-docs", action="store_true", help="only fill in docs/guide/training.md"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
