"""Measures a bundle in process: accuracy, cost and time of every exit, the ensemble and early exit.

    OFFRAMP_DATA=data python benchmarks/embedded.py

Accuracies are of all test images. Times are of one image at a time on one thread: the policies take
turns on the same images, `--repeats` times over, and the median of each is given, so that the ratios
hold on a machine with other work too. Writes a JSON file and the picture of the trade-off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from matplotlib.figure import Figure

from exports.bundle import Bundle, load_bundle
from exports.bundles import embedded
from exports.policy import Floats, Policy, simulate
from serving.engine import Engine
from training.data.dataset import Split, load_dataset
from training.recipe import DataRecipe

HERE = Path(__file__).parent


def main() -> None:
    """Measure, print the table, write the JSON and the picture."""
    arguments = _arguments()
    bundle = load_bundle(arguments.bundle)
    data = DataRecipe.model_validate(bundle.manifest.provenance.recipe["data"])
    test = load_dataset(data, arguments.data).test
    engine = Engine(bundle, threads=1)
    logits = all_logits(engine, test)
    policies = points(bundle)
    rows = {
        name: accuracy_and_cost(bundle, policy, logits, test) for name, policy in policies.items()
    }
    timed = milliseconds(engine, policies, test, arguments.images, arguments.repeats)
    for name, value in timed.items():
        rows[name]["ms"] = value
    result = {
        "bundle": bundle.manifest.name,
        "machine": machine(),
        "images_timed": arguments.images,
        "repeats": arguments.repeats,
        "rows": rows,
    }
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    draw(bundle, logits, test, arguments.picture)
    print(table(rows))
    print(result["machine"])


def points(bundle: Bundle) -> dict[str, Policy]:
    """The policies that are compared, by the name of their row."""
    exits = len(bundle.manifest.exits)
    base = bundle.policy
    rows = {f"exit {k}": base.override(mode="exit", max_exit=k) for k in range(1, exits + 1)}
    return {**rows, "ensemble": base.override(mode="ensemble"), "early exit": base}


def all_logits(engine: Engine, test: Split) -> Floats:
    """Logits of every exit for every test image, [K, N, C]."""
    parts = []
    for start in range(0, len(test), 100):
        inputs: Any = test.images[start : start + 100]
        logits = []
        for stage in range(1, engine.exits + 1):
            output = engine.run_stage(stage, inputs)
            logits.append(output.logits)
            inputs = output.features
        parts.append(np.stack(logits))
    return np.concatenate(parts, axis=1)


def accuracy_and_cost(
    bundle: Bundle, policy: Policy, logits: Floats, test: Split
) -> dict[str, Any]:
    """What a policy answers on the whole test split: percent right, mean MACs, exit shares."""
    outcome = simulate(policy, logits, bundle.manifest.scaling)
    macs = [entry.macs for entry in bundle.manifest.exits]
    return {
        "accuracy": round(100 * outcome.accuracy(test.labels), 2),
        "mean_mmacs": round(outcome.mean_cost(macs) / 1e6, 2),
        "exit_shares": [round(share, 4) for share in outcome.shares(len(macs))],
    }


def milliseconds(
    engine: Engine, policies: dict[str, Policy], test: Split, images: int, repeats: int
) -> dict[str, float]:
    """Median over `repeats` of the mean milliseconds an image takes, alone, under each policy."""
    chosen = test.images[:images]
    engine.classify(chosen[:50], next(iter(policies.values())))
    seen: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(repeats):
        for name, policy in policies.items():
            began = time.perf_counter()
            for image in chosen:
                engine.classify(image[None], policy)
            seen[name].append((time.perf_counter() - began) / images * 1e3)
    return {name: round(statistics.median(values), 3) for name, values in seen.items()}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    deepest = max(name for name in rows if name.startswith("exit "))
    lines = [
        "| answer from | test accuracy, % | mean MACs, M | ms an image | against full depth |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ratio = rows[deepest]["ms"] / row["ms"]
        lines.append(
            f"| {name} | {row['accuracy']:.2f} | {row['mean_mmacs']:.1f} | {row['ms']:.2f} "
            f"| {ratio:.2f} x |"
        )
    return "\n".join(lines)


def draw(bundle: Bundle, logits: Floats, test: Split, path: Path) -> None:
    """Accuracy over mean cost for every threshold, with the exits and the policy as points."""
    macs = [entry.macs for entry in bundle.manifest.exits]
    scaling = bundle.manifest.scaling
    full = macs[-1]
    curve = []
    for threshold in np.linspace(0, 1.001, 101):
        policy = bundle.policy.override(mode="early_exit", threshold=float(threshold))
        outcome = simulate(policy, logits, scaling)
        curve.append((outcome.mean_cost(macs) / full, 100 * outcome.accuracy(test.labels)))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True), color="tab:blue", label="early exit, every threshold")
    singles = [100 * float((own.argmax(1) == test.labels).mean()) for own in logits]
    axes.plot([m / full for m in macs], singles, "o", color="tab:gray", label="one exit alone")
    chosen = simulate(bundle.policy, logits, scaling)
    axes.plot(
        [chosen.mean_cost(macs) / full],
        [100 * chosen.accuracy(test.labels)],
        "*",
        markersize=16,
        color="tab:red",
        label="default policy",
    )
    axes.set(xlabel="mean cost, share of full depth's MACs", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def machine() -> str:
    """The processor, its cores and the runtime, in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=embedded())
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "embedded.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "embedded.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
