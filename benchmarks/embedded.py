r"""Measures bundles in process: accuracy, cost and time of every exit, the ensemble and early exit.

    OFFRAMP_DATA=data python -m benchmarks.embedded \
        --bundles cifar100-lite0-fp32 exports/embedded/cifar100-lite0

The bundles are one network in several precisions. Where the last stage takes the image, the last exit is a
static classifier: the one that a cascade is to be compared with.

Accuracies are of all test images. Times are of one image at a time on one thread: precisions and rows
alternate on the same images, `--repeats` times, and the medians are reported, so that ratios hold on a
machine with other work. Writes a JSON file and the picture of the trade-off; `--write-docs` puts the table
into docs/design/benchmarks.md and four of its rows into the README, and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.harness.corruptions import jpeg
from benchmarks.harness.docs import DOCS, fill_in, publish
from benchmarks.harness.docs import table as markdown_table
from benchmarks.harness.server import machine
from exports.bundle.policy import Floats, Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from offramp.progress import counting_bar
from serving.inference.engine import Engine
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
Result = dict[str, Any]
Key = TypeVar("Key")
WARM_UP_IMAGES = 50
JPEG_QUALITY = 80
# The row of the last exit if it needs no stage before.
ALONE = "the last network alone"


def main() -> None:
    """Measure, print the table, write the JSON and the picture; or write the tables of the documents."""
    arguments = _arguments()
    result = publish(arguments, run, section, "design/benchmarks.md", "embedded")
    if arguments.write_docs:
        fill_in(README, "embedded", readme_section(result))


def run(arguments: argparse.Namespace) -> Result:
    """The figures of every row in every precision."""
    bundles = {b.manifest.precision: b for b in map(load_bundle, arguments.bundles)}
    last = list(bundles.values())[-1]
    data = DataRecipe.model_validate(last.manifest.provenance.recipe["data"])
    test = load_dataset(data, arguments.data).test
    if arguments.limit:
        test = test.take(np.arange(arguments.limit))
    logits = {name: StageRunner(b.stages).logits(test.images) for name, b in bundles.items()}
    measured: Result = {
        name: {
            "megabytes": round(sum(map(len, bundle.stages)) / 1e6, 2),
            "rows": {
                row: accuracy_and_cost(bundle, policy, logits[name], test)
                for row, policy in policies(bundle).items()
            },
        }
        for name, bundle in bundles.items()
    }
    for name, bundle in bundles.items():
        measured[name]["compressed"] = compressed_accuracy(bundle, test)
    timed = milliseconds(bundles, test, arguments.images, arguments.repeats)
    for (name, row), value in timed.items():
        measured[name]["rows"][row]["ms"] = value
    draw(bundles, logits, test, arguments.picture)
    return {
        "bundle": last.manifest.name,
        "machine": machine(),
        "images_timed": arguments.images,
        "repeats": arguments.repeats,
        "precisions": measured,
    }


def policies(bundle: Bundle) -> dict[str, Policy]:
    """The policies that are compared, by the name of their row."""
    exits = len(bundle.manifest.exits)
    base = bundle.policy
    rows = {
        ALONE if k == exits and stands_alone(bundle) else f"exit {k}": base.override(
            mode="exit", max_exit=k
        )
        for k in range(1, exits + 1)
    }
    return {**rows, "ensemble": base.override(mode="ensemble"), "early exit": base}


def stands_alone(bundle: Bundle) -> bool:
    """Whether the last stage is a whole network of its own, that is, takes the image."""
    return len(bundle.manifest.exits) > 1 and bundle.manifest.exits[-1].input == "image"


def compressed_accuracy(bundle: Bundle, test: Split) -> float:
    """Early exit's accuracy in percent on the test images as JPEG of quality JPEG_QUALITY."""
    logits = StageRunner(bundle.stages).logits(jpeg(test.images, JPEG_QUALITY))
    outcome = simulate(bundle.policy, logits, bundle.manifest.scaling)
    return round(100 * outcome.accuracy(test.labels), 2)


def accuracy_and_cost(
    bundle: Bundle, policy: Policy, logits: Floats, test: Split
) -> dict[str, Any]:
    """A policy on the whole test split: accuracy in percent, mean MACs, exit shares."""
    outcome = simulate(policy, logits, bundle.manifest.scaling)
    manifest = bundle.manifest
    macs = policy.costs(manifest.inputs, [entry.macs for entry in manifest.exits])
    return {
        "accuracy": round(100 * outcome.accuracy(test.labels), 2),
        "mean_mmacs": round(outcome.mean_cost(macs) / 1e6, 2),
        "exit_shares": [round(share, 4) for share in outcome.shares(len(macs))],
    }


def milliseconds(
    bundles: dict[str, Bundle], test: Split, images: int, repeats: int
) -> dict[tuple[str, str], float]:
    """Median over `repeats` of the mean milliseconds an image takes, alone, by precision and row."""
    calls = {
        (name, row): call for name, b in bundles.items() for row, call in answer_calls(b).items()
    }
    return interleaved_milliseconds(calls, test.images[:images], repeats)


def interleaved_milliseconds(
    calls: Mapping[Key, Callable[[NDArray[np.uint8]], object]],
    images: NDArray[np.uint8],
    repeats: int,
) -> dict[Key, float]:
    """The mean milliseconds of each of `calls` with one image, uint8 [1, H, W, 3].

    In each of `repeats` turns every call gets all `images` [N, H, W, 3], one at a time, after the call
    before it; the medians of the turns are returned. Each call is warmed up with WARM_UP_IMAGES.
    """
    for call in calls.values():
        for image in images[:WARM_UP_IMAGES]:
            call(image[None])
    seen: dict[Key, list[float]] = {key: [] for key in calls}
    with counting_bar("timing") as bar:
        for _ in bar.track(range(repeats)):
            for key, call in calls.items():
                began = time.perf_counter()
                for image in images:
                    call(image[None])
                seen[key].append((time.perf_counter() - began) / len(images) * 1e3)
    return {key: round(statistics.median(values), 3) for key, values in seen.items()}


def answer_calls(bundle: Bundle) -> dict[str, Callable[[NDArray[np.uint8]], object]]:
    """What answers one image uint8 [1, H, W, 3] on one thread, by row."""
    engine = Engine(bundle, threads=1)
    return {
        row: partial(engine.classify, policy=policy) for row, policy in policies(bundle).items()
    }


def section(result: Result) -> str:
    """The result as Markdown: a row per answer, four columns per precision, and what it was measured on.

    The speed is relative to the network that would be served without early exit, in the first precision.
    """
    measured = result["precisions"]
    columns = ("accuracy, %", "mean MACs, M", "ms", "speed")
    head = [f"{p}: {c}" if c == columns[0] else c for p in measured for c in columns]
    rows = [
        [row, *(cell for precision in measured for cell in _cells(result, row, precision))]
        for row in next(iter(measured.values()))["rows"]
    ]
    sizes = ", ".join(f"{part['megabytes']:.1f} MB in {p}" for p, part in measured.items())
    row, precision = _baseline(result)
    compressed = ", ".join(_compressed(precision, part) for precision, part in measured.items())
    return (
        markdown_table(["answer from", *head], rows)
        + f"\n\nThe stages take {sizes}. Speed is relative to {row} in {precision}. One image at "
        f"a time, one thread, the median of {result['repeats']} interleaved repeats over "
        f"{result['images_timed']} images, on {result['machine']}.\n\n"
        f"Early exit on the same images as JPEG of quality {JPEG_QUALITY}: {compressed}.\n"
    )


def _compressed(precision: str, part: Result) -> str:
    """As in "77.30 % in int8, 4.6 points less"."""
    lost = part["rows"]["early exit"]["accuracy"] - part["compressed"]
    return f"{part['compressed']:.2f} % in {precision}, {lost:.1f} points less"


def readme_section(result: Result) -> str:
    """The README's rows as Markdown, with the machine: the network that would be served without early exit,
    and early exit, in each precision."""
    head = ["answer from", "accuracy, %", "mean MACs, M", "ms", "speed"]
    static, _ = _baseline(result)
    rows = [
        [f"{row}, {precision}", *_cells(result, row, precision)]
        for row in (static, "early exit")
        for precision in result["precisions"]
    ]
    machine = f"One image at a time, one thread, on {result['machine']}."
    return f"{markdown_table(head, rows)}\n\n{machine}\n"


def _baseline(result: Result) -> tuple[str, str]:
    """The row and the precision that speeds are relative to."""
    precision, part = next(iter(result["precisions"].items()))
    exits = [row for row in part["rows"] if row == ALONE or row.startswith("exit ")]
    return exits[-1], precision


def _cells(result: Result, row: str, precision: str) -> list[str]:
    static, first = _baseline(result)
    figures = result["precisions"][precision]["rows"][row]
    ratio = result["precisions"][first]["rows"][static]["ms"] / figures["ms"]
    return [
        f"{figures['accuracy']:.2f}",
        f"{figures['mean_mmacs']:.1f}",
        f"{figures['ms']:.2f}",
        f"{ratio:.2f} x",
    ]


def draw(bundles: dict[str, Bundle], logits: dict[str, Floats], test: Split, path: Path) -> None:
    """Accuracy over mean cost for every threshold, with the exits and the policy as points."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, bundle), colour in zip(bundles.items(), ("tab:gray", "tab:blue"), strict=False):
        macs = [entry.macs for entry in bundle.manifest.exits]
        scaling, full = bundle.manifest.scaling, macs[-1]
        curve = []
        for threshold in np.linspace(0, 1.001, 101):
            policy = bundle.policy.override(mode="early_exit", threshold=float(threshold))
            outcome = simulate(policy, logits[name], scaling)
            curve.append((outcome.mean_cost(macs) / full, 100 * outcome.accuracy(test.labels)))
        axes.plot(*zip(*curve, strict=True), color=colour, label=f"{name}: every threshold")
        singles = [100 * float((own.argmax(1) == test.labels).mean()) for own in logits[name]]
        axes.plot([m / full for m in macs], singles, "o", color=colour, label=f"{name}: one exit")
        if stands_alone(bundle):
            alone = (macs[-1] - macs[-2]) / full
            axes.plot(alone, singles[-1], "s", color=colour, label=f"{name}: {ALONE}")
        chosen = simulate(bundle.policy, logits[name], scaling)
        point = [chosen.mean_cost(macs) / full], [100 * chosen.accuracy(test.labels)]
        axes.plot(*point, "*", markersize=16, color=colour, label=f"{name}: default policy")
    axes.set(xlabel="mean cost, share of full depth's MACs", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, nargs="+", default=[CIFAR100])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--limit", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--images", type=int, default=1000, help="of them, how many are timed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "embedded.json")
    parser.add_argument("--picture", type=Path, default=DOCS / "images" / "embedded.png")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
