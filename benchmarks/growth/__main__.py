"""How serving grows with cores, batch size, exits, image size and load, and how far it is from its limits.

    OFFRAMP_DATA=data python -m benchmarks.growth       # about nine minutes on two cores

- Cores: full depth in process by 1, 2, … threads, decoding included; over HTTP on the server's half.
- Batch size: images a second, in process and in one request.
- Exits: a ResNet of random weights with 1 to 8 exits, its stages in a chain.
- Image size: an EfficientNet-Lite0 of random weights at several sides, in process and over HTTP.
- Load: latency at shares of full depth's maximum, at full depth and with early exit.
- Limits: the rates over HTTP and in process, beside the rate that the processor's fastest matrix product
  would allow.

Memory by the number of models is drawn from what `benchmarks.promises.memory` wrote. Server and load have a
core each, or half of the cores. Writes a JSON file and pictures; `--write-docs` puts them into
docs/design/growth.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import in_process, limits, over_http
from benchmarks.growth.picture import draw
from benchmarks.growth.section import section
from benchmarks.harness.docs import DOCS, publish
from benchmarks.harness.images import label, test_images
from benchmarks.harness.server import machine
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100

HERE = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON and the pictures; or fill in the docs."""
    arguments = _arguments(argv)
    publish(arguments, run, section, "design/growth.md", "growth")
    memory = json.loads((HERE / "memory.json").read_text("utf-8"))
    draw(json.loads(arguments.json.read_text("utf-8")), memory, arguments.pictures)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    seconds = arguments.seconds
    bundle = load_bundle(arguments.bundle)
    with tempfile.TemporaryDirectory() as folder:
        images = test_images(bundle, arguments.data, Path(folder) / "images.npz")
        return {
            "machine": machine(),
            "seconds": seconds,
            "bundle": label(bundle),
            "images": "test split" if images.labels else "generated",
            "cores": {
                "in process": in_process.by_cores(bundle, images.files, seconds),
                "over HTTP": over_http.by_cores(bundle, images, seconds),
            },
            "batch": {
                "in process": in_process.by_batch(bundle, seconds),
                "over HTTP": over_http.by_batch(bundle, images, seconds, Path(folder)),
            },
            "exits": in_process.by_exits(seconds),
            "side": over_http.by_side(seconds, Path(folder)),
            "load": over_http.by_load(bundle, images, seconds),
            "limits": limits.measure(bundle, images, seconds),
        }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--bundle", type=Path, default=CIFAR100)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--seconds", type=float, default=6.0, help="of every figure")
    parser.add_argument("--json", type=Path, default=HERE / "growth.json")
    parser.add_argument("--pictures", type=Path, default=DOCS / "images" / "growth.png")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
