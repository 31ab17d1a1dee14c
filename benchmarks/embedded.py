"""Measures the embedded bundle in process, float32 and int8: accuracy, cost and time of every exit, the
ensemble and early exit.

    OFFRAMP_DATA=data python -m benchmarks.embedded

Accuracies are of all test images. Times are of one image at a time on one thread: precisions and policies
alternate on the same images, `--repeats` times, and the medians are reported, so that ratios hold on a
machine with other work. Writes a JSON file, the picture of the trade-off,
the table of docs/design/benchmarks.md and three of its rows for the README.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.server import machine
from exports.bundle.policy import Floats, Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import embedded
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from serving.inference.engine import Engine
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

HERE = Path(__file__).parent
FP32 = HERE / "bundles" / "cifar100-oto-fp32"
BEGIN, END = "<!-- table: benchmarks/embedded.py -->\n", "<!-- end -->"
Result = dict[str, Any]
# The README's rows, as (row, precision): full depth, then early exit, then early exit in int8.
HIGHLIGHTS = (("exit 4", "fp32"), ("early exit", "fp32"), ("early exit", "int8"))


def main() -> None:
    """Measure, print the table, write the JSON, the picture and the tables of the documents."""
    arguments = _arguments()
    bundles = {b.manifest.precision: b for b in map(load_bundle, arguments.bundles)}
    last = list(bundles.values())[-1]
    data = DataRecipe.model_validate(last.manifest.provenance.recipe["data"])
    test = load_dataset(data, arguments.data).test
    if arguments.limit:
        test = test.take(np.arange(arguments.limit))
    logits = {name: StageRunner(b.stages).logits(test.images) for name, b in bundles.items()}
    measured = {
        name: {
            "megabytes": round(sum(map(len, bundle.stages)) / 1e6, 2),
            "rows": {
                row: accuracy_and_cost(bundle, policy, logits[name], test)
                for row, policy in points(bundle).items()
            },
        }
        for name, bundle in bundles.items()
    }
    timed = milliseconds(bundles, test, arguments.images, arguments.repeats)
    for (name, row), value in timed.items():
        measured[name]["rows"][row]["ms"] = value
    result = {
        "bundle": last.manifest.name,
        "machine": machine(),
        "images_timed": arguments.images,
        "repeats": arguments.repeats,
        "precisions": measured,
    }
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    draw(bundles, logits, test, arguments.picture)
    for document, content in (
        (arguments.page, table(result)),
        (arguments.readme, short_table(result)),
    ):
        document.write_text(with_table(document.read_text("utf-8"), content), "utf-8")
    print(table(result))


def points(bundle: Bundle) -> dict[str, Policy]:
    """The policies that are compared, by the name of their row."""
    exits = len(bundle.manifest.exits)
    base = bundle.policy
    rows = {f"exit {k}": base.override(mode="exit", max_exit=k) for k in range(1, exits + 1)}
    return {**rows, "ensemble": base.override(mode="ensemble"), "early exit": base}


def accuracy_and_cost(
    bundle: Bundle, policy: Policy, logits: Floats, test: Split
) -> dict[str, Any]:
    """A policy on the whole test split: accuracy in percent, mean MACs, exit shares."""
    outcome = simulate(policy, logits, bundle.manifest.scaling)
    macs = [entry.macs for entry in bundle.manifest.exits]
    return {
        "accuracy": round(100 * outcome.accuracy(test.labels), 2),
        "mean_mmacs": round(outcome.mean_cost(macs) / 1e6, 2),
        "exit_shares": [round(share, 4) for share in outcome.shares(len(macs))],
    }


def milliseconds(
    bundles: dict[str, Bundle], test: Split, images: int, repeats: int
) -> dict[tuple[str, str], float]:
    """Median over `repeats` of the mean milliseconds an image takes, alone, by precision and row."""
    chosen = test.images[:images]
    engines = {name: Engine(bundle, threads=1) for name, bundle in bundles.items()}
    for name, engine in engines.items():
        engine.classify(chosen[:50], bundles[name].policy)
    seen: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for row in points(next(iter(bundles.values()))):
            for name, engine in engines.items():
                policy = points(bundles[name])[row]
                began = time.perf_counter()
                for image in chosen:
                    engine.classify(image[None], policy)
                took = (time.perf_counter() - began) / images * 1e3
                seen.setdefault((name, row), []).append(took)
    return {key: round(statistics.median(values), 3) for key, values in seen.items()}


def table(result: Result) -> str:
    """The result as Markdown: a row per answer, four columns per precision, and what it was measured on.

    The speed is relative to full depth, the last exit, in the first precision.
    """
    measured = result["precisions"]
    head = "".join(f" {p}: accuracy, % | mean MACs, M | ms | speed |" for p in measured)
    lines = [f"| answer from |{head}", "|---|" + "---|" * 4 * len(measured)]
    for row in next(iter(measured.values()))["rows"]:
        cells = "".join(_cells(result, row, precision) for precision in measured)
        lines.append(f"| {row} |{cells}")
    sizes = ", ".join(f"{part['megabytes']:.1f} MB in {p}" for p, part in measured.items())
    row, precision = _full_depth(result)
    lines += [
        "",
        f"The stages take {sizes}. Speed is relative to {row} in {precision}. One image at "
        f"a time, one thread, the median of {result['repeats']} interleaved repeats over "
        f"{result['images_timed']} images, on {result['machine']}.",
    ]
    return "\n".join(lines)


def short_table(result: Result) -> str:
    """The README's rows as Markdown, with the machine."""
    lines = ["| answer from | accuracy, % | mean MACs, M | ms | speed |", "|---|---|---|---|---|"]
    for row, precision in HIGHLIGHTS:
        lines.append(f"| {row}, {precision} |{_cells(result, row, precision)}")
    return "\n".join([*lines, "", f"One image at a time, one thread, on {result['machine']}."])


def _full_depth(result: Result) -> tuple[str, str]:
    """The row and the precision that speeds are relative to."""
    precision, part = next(iter(result["precisions"].items()))
    return max(name for name in part["rows"] if name.startswith("exit ")), precision


def _cells(result: Result, row: str, precision: str) -> str:
    deepest, first = _full_depth(result)
    figures = result["precisions"][precision]["rows"][row]
    ratio = result["precisions"][first]["rows"][deepest]["ms"] / figures["ms"]
    return (
        f" {figures['accuracy']:.2f} | {figures['mean_mmacs']:.1f} | {figures['ms']:.2f} |"
        f" {ratio:.2f} x |"
    )


def with_table(text: str, content: str) -> str:
    """`text` with `content` between its marks."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}{content}\n{END}{after}"


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
        chosen = simulate(bundle.policy, logits[name], scaling)
        point = [chosen.mean_cost(macs) / full], [100 * chosen.accuracy(test.labels)]
        axes.plot(*point, "*", markersize=16, color=colour, label=f"{name}: default policy")
    axes.set(xlabel="mean cost, share of full depth's MACs", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, nargs="+", default=[FP32, embedded()])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--limit", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--images", type=int, default=1000, help="of them, how many are timed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "embedded.json")
    parser.add_argument(
        "--picture", type=Path, default=HERE.parent / "docs" / "images" / "embedded.png"
    )
    parser.add_argument("--readme", type=Path, default=HERE.parent / "README.md")
    page = HERE.parent / "docs" / "design" / "benchmarks.md"
    parser.add_argument("--page", type=Path, default=page)
    return parser.parse_args()


if __name__ == "__main__":
    main()
