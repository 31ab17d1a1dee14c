"""Measures `offramp classify` on a folder beside what the same cores do in process; in turns, on one machine.

    OFFRAMP_DATA=data python -m benchmarks.bulk [--bundle BUNDLE]

The bound: a thread per core that decodes and classifies files from memory, one at a time, by the bundle's
policy. Against it: the command on a folder of the same files, which also finds, reads and batches them, and
writes the rows; its rate is measured in a process of its own, from the first group to the last row. Images
are the test split as PNG, or generated ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import threads
from benchmarks.harness.images import Images, label, test_images
from benchmarks.harness.server import ROOT, machine
from benchmarks.serving import InProcess
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100
from serving.inference.engine import Engine
from serving.settings import available_cores

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    arguments = _arguments(argv)
    bundle = load_bundle(arguments.bundle or CIFAR100)
    with tempfile.TemporaryDirectory() as folder:
        images = test_images(bundle, arguments.data, Path(folder) / "packed.npz")
        found = measure(bundle, images, arguments.images, arguments.repeats, Path(folder))
    text = json.dumps(found, indent=1)
    arguments.json.write_text(text + "\n", "utf-8")
    print(text)


def measure(
    bundle: Bundle, images: Images, count: int, repeats: int, folder: Path
) -> dict[str, Any]:
    """Images a second of both, the medians of `repeats` interleaved runs over `count` images."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(count):
        (photos / f"{number:06}.png").write_bytes(images.files[number % len(images.files)])
    cores = available_cores()
    one = InProcess(Engine(bundle), bundle.policy, images.files)
    bound, command = [], []
    for number in range(repeats):
        bound.append(threads.throughput(one, cores, count // cores))
        command.append(_classify(bundle, photos, folder / f"{number}.jsonl"))
    rates = {"in_process": float(np.median(bound)), "classify": float(np.median(command))}
    return {
        "machine": machine(),
        "bundle": label(bundle),
        "images": "test split" if images.labels else "generated",
        "count": count,
        **rates,
        "ratio": rates["classify"] / rates["in_process"],
    }


def _classify(bundle: Bundle, photos: Path, output: Path) -> float:
    """Images a second of the command, as it reports them."""
    command = [sys.executable, "-m", "offramp.cli", "classify", str(photos)]
    command += ["-o", str(output), "--bundle", str(bundle.path)]
    done = subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True)
    found = re.search(r"\((\d+) images/s\)", done.stderr)
    assert found is not None, done.stderr
    return float(found.group(1))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "bulk.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
