"""Compares trained networks for the embedded bundle: each alone, and each before a larger one.

    OFFRAMP_DATA=data python -m benchmarks.trials runs/trial-lite0-64 runs/trial-lite0-96 --work trials-work

Every run is exported alone in int8. In a pair the larger network takes the image where the smaller one is not
confident, as the recipe field `followed_by` exports it. Temperatures, weights and thresholds come from the
held-out split, as in an export: the policy is the cheapest certified at half a point. Accuracies are of the
test split. Times are of one image at a time on one thread: all networks and exits alternate `--repeats`
times, and medians are reported. A pair's time is the sum of its networks'.

Bundles and logits are kept in `--work`, so a stopped benchmark continues, and measuring again repeats only
the timing and the choice of policies. Delete the directory after a change of the exports. Runs whose name
begins with `trial-` are short trials. Their recipes are in benchmarks/trials/recipes. Writes a JSON file and
a picture; `--write-docs` puts the table into docs/guide/training.md and measures nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.docs import DOCS, publish
from benchmarks.harness.server import machine
from benchmarks.trials.candidates import PERMITTED_DROP, pairs, row
from benchmarks.trials.networks import exit_milliseconds, open_networks
from benchmarks.trials.picture import draw
from benchmarks.trials.section import section
from offramp.progress import counting_bar

HERE = Path(__file__).parents[1]
# What the embedded bundle is asked for.
TARGETS = {"accuracy": 80.0, "ms": 1.2}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON and the picture; or fill in the docs."""
    arguments = _arguments(argv)
    result = publish(arguments, measure, section, "guide/training.md", "trials")
    draw(result, arguments.picture)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written."""
    if not arguments.runs:
        raise SystemExit("name at least one run")
    networks, images = open_networks(arguments.runs, arguments.work, arguments.data)
    if arguments.limit:
        first = np.arange(arguments.limit)
        networks = [network.with_test(network.test.take(first)) for network in networks]
    load = os.getloadavg()[0]
    times = exit_milliseconds(networks, images[: arguments.images], arguments.repeats)
    alone = [network.candidate(ms) for network, ms in zip(networks, times, strict=True)]
    together = pairs(alone)
    with counting_bar("policies") as bar:
        rows = [row(one) for one in bar.track([*alone, *together])]
    for network, found in zip(networks, rows, strict=False):
        found["recipe"] = network.recipe_in_words
    names = " ".join(f"runs/{network.name}" for network in networks)
    options = f"--images {arguments.images} --repeats {arguments.repeats}"
    return {
        "machine": machine(),
        "load_average": round(load, 1),
        "command": f"python -m benchmarks.trials {names} {options}",
        "images_timed": arguments.images,
        "repeats": arguments.repeats,
        "test_images": len(networks[0].test.labels),
        "permitted_drop": 100 * PERMITTED_DROP,
        "targets": TARGETS,
        "networks": rows[: len(alone)],
        "pairs": rows[len(alone) :],
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trials", description=__doc__.splitlines()[0]
    )
    parser.add_argument("runs", nargs="*", type=Path, help="directories of finished runs")
    parser.add_argument("--work", type=Path, default=Path("trials-work"))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--limit", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--images", type=int, default=200, help="test images that are timed")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, default=HERE / "trials.json")
    parser.add_argument("--picture", type=Path, default=DOCS / "images" / "trials.png")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
