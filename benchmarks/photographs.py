"""Compares `offramp train --data FOLDER` and `offramp export`, with their defaults, with a short script that
fine-tunes the same backbone: accuracy on FOLDER/test, and the mean time of an image.

    python -m benchmarks.photographs grocery=data/grocery --work runs-photographs

FOLDER has `train` and `test`. Both start from the same ImageNet weights and see the same images for the
same number of epochs; the script trains at 224 pixels, or --side. Times are of one image on one thread of
onnxruntime, decoding left out: the script's float32 network, and our stages weighted by the share of test
images that reach them under the default policy. They are CPU times, both alternate, and the medians are
reported, so that ratios hold on a machine with other work. What is trained already in --work is used again,
so a stopped benchmark goes on where it was. Seeds that the JSON file has are not measured again, on whatever
machine they were; `--again` begins anew. Writes one JSON file with every seed and the medians; `--write-docs`
puts it into docs/guide/your-own-images.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.docs import DOCS, fill_in, table
from benchmarks.harness.graphs import run_on_one_thread
from benchmarks.harness.server import machine
from benchmarks.short_script import fine_tune, test_images
from exports.bundle.manifest import MANIFEST, Manifest
from exports.bundle.reader import load_bundle
from exports.options import ExportOptions
from exports.pipeline import export_bundle
from offramp.files import replacing
from offramp.onnx_runtime import load_onnxruntime, session_options
from training.auto_train import auto_train, run_name
from training.recipes.files import load_recipe

HERE = Path(__file__).parent
PRECISIONS = ("fp32", "int8")
ROUNDS = 60
Result = dict[str, Any]


def main() -> None:
    """Train and measure what is missing, for every folder and seed; write the JSON after each."""
    arguments = _arguments()
    if arguments.write_docs:
        result = json.loads(arguments.json.read_text("utf-8"))
        fill_in(DOCS / "guide" / "your-own-images.md", "photographs", section(result))
        return
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    folders: dict[str, Result] = {}
    if arguments.json.is_file() and not arguments.again:
        folders = json.loads(arguments.json.read_text("utf-8"))["folders"]
    for name, folder in arguments.folders:
        measured = folders.get(name, {"seeds": []})["seeds"]
        for seed in seeds:
            if any(one["seed"] == seed for one in measured):
                continue
            work = arguments.work / name / f"seed{seed}"
            measured.append(measure(folder, work, arguments.side, seed))
            measured.sort(key=lambda one: one["seed"])
            folders[name] = {"seeds": measured, "medians": medians(measured)}
            with replacing(arguments.json) as part:
                part.write_text(json.dumps({"folders": folders}, indent=2) + "\n", "utf-8")


def measure(folder: Path, work: Path, side: int, seed: int) -> Result:
    """Both networks of one seed: accuracy in percent and mean milliseconds an image."""
    work.mkdir(parents=True, exist_ok=True)
    runs = work / "runs"
    name = run_name(folder.resolve().name)
    bundles = {precision: work / f"bundle-{precision}" for precision in PRECISIONS}
    if not (bundles["fp32"] / MANIFEST).is_file():
        auto_train(folder, runs=runs, device="cpu", resume=True, seed=seed)
    for precision, bundle in bundles.items():
        if not (bundle / MANIFEST).is_file():
            options = ExportOptions(precision=precision, allow_loss=True)
            export_bundle(runs / name, bundle, options, data_root=folder)
    epochs = load_recipe(str(runs / f"{name}.toml")).train.epochs
    script = _script(folder, work, side, epochs, seed)
    times = milliseconds(work / "script.onnx", side, bundles)
    result: Result = {
        "seed": seed,
        "machine": machine(),
        "epochs": epochs,
        "script": {"side": side, "accuracy": script, "ms": times["script"]},
    }
    for precision, path in bundles.items():
        bundle = load_bundle(path)
        manifest, default = bundle.manifest, bundle.manifest.provenance.test_default
        reached = 1 - np.cumsum([0.0, *default.exit_shares[:-1]])
        reached[: bundle.policy.first_stage(manifest.inputs) - 1] = 0
        mean_ms = float(np.dot(reached, times[precision]))
        result[precision] = {
            "accuracy": default.accuracy,
            "ms": round(mean_ms, 3),
            "of_script": round(mean_ms / times["script"], 3),
            "stage_ms": times[precision],
            "exit_shares": default.exit_shares,
            "exits": [entry.test.single for entry in manifest.exits],
            "ensemble": manifest.exits[-1].test.running,
            "held_out_ensemble": manifest.exits[-1].held_out.running,
            "sides": sides(manifest),
        }
    return result


def sides(manifest: Manifest) -> list[int]:
    """The sides at which the networks see an image, in pixels."""
    recipes = (manifest.provenance.recipe, *manifest.provenance.followers)
    return [recipe["network"]["side"] or manifest.input.height for recipe in recipes]


def medians(measured: Sequence[Result]) -> Result:
    """The medians over the seeds, and of the differences to the script."""

    def median(value: Callable[[Result], float]) -> float:
        return round(statistics.median(map(value, measured)), 3)

    return {
        "script": {key: median(lambda m, k=key: m["script"][k]) for key in ("accuracy", "ms")},
        **{
            precision: {
                "accuracy": median(lambda m, p=precision: m[p]["accuracy"]),
                "gain": median(lambda m, p=precision: _gain(m, p)),
                "of_script": median(lambda m, p=precision: m[p]["of_script"]),
            }
            for precision in PRECISIONS
        },
    }


def section(result: Result) -> str:
    """Every seed and the medians of every folder as Markdown."""
    head = ["folder", "seed", "sides of ours", "script: accuracy, %", "ms"]
    for precision in PRECISIONS:
        head += [f"{precision}: accuracy, %", "more than the script", "ms of the script's"]
    rows = []
    for name, folder in result["folders"].items():
        for one in folder["seeds"]:
            gains = {p: one[p] | {"gain": _gain(one, p)} for p in PRECISIONS}
            seen = ", ".join(map(str, one["int8"]["sides"]))
            rows.append([name, str(one["seed"]), seen, *_cells(one["script"], gains)])
        medians_of = folder["medians"]
        rows.append([name, "median", "", *_cells(medians_of["script"], medians_of)])
    machines = {one["machine"]: None for of in result["folders"].values() for one in of["seeds"]}
    about = (
        "The default policy's accuracy on the test split, and mean times of an image on one thread, "
        f"decoding left out, on {' and '.join(machines)}. `offramp export` writes int8."
    )
    return f"{table(head, rows)}\n\n{about}\n"


def _cells(script: Result, ours: Result) -> list[str]:
    cells = [f"{script['accuracy']:.2f}", f"{script['ms']:.1f}"]
    for precision in PRECISIONS:
        one = ours[precision]
        cells += [f"{one['accuracy']:.2f}", f"{one['gain']:+.2f}", f"{one['of_script']:.2f}"]
    return cells


def _gain(measured: Result, precision: str) -> float:
    gain: float = measured[precision]["accuracy"] - measured["script"]["accuracy"]
    return gain


def milliseconds(script: Path, side: int, bundles: dict[str, Path]) -> Result:
    """The median CPU time of the script's network, and of every stage of the bundles, in milliseconds."""
    rng = np.random.default_rng(0)
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    floats = rng.standard_normal((1, 3, side, side)).astype(np.float32)
    calls["script", 0] = run_on_one_thread(script.read_bytes(), floats)
    for name, path in bundles.items():
        bundle = load_bundle(path)
        size = bundle.manifest.input
        image = rng.integers(0, 256, (1, size.height, size.width, 3), dtype=np.uint8)
        if any(entry.input != "image" for entry in bundle.manifest.exits):
            raise ValueError(f"{path} has stages that take features")
        for k, stage in enumerate(bundle.stages):
            calls[name, k] = run_on_one_thread(stage, image)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            started = time.thread_time()
            call()
            times[key].append(1e3 * (time.thread_time() - started))
    found = {key: round(statistics.median(values), 3) for key, values in times.items()}
    stages = {name: [ms for (of, _), ms in found.items() if of == name] for name in bundles}
    return {"script": found["script", 0], **stages}


def _script(folder: Path, work: Path, side: int, epochs: int, seed: int) -> float:
    """The accuracy of the short script's network, which is written to `work`/script.onnx."""
    done = work / "script.json"
    settings = {"side": side, "epochs": epochs, "seed": seed}
    if done.is_file() and json.loads(done.read_text("utf-8"))["settings"] == settings:
        return float(json.loads(done.read_text("utf-8"))["accuracy"])
    network = fine_tune(folder, side, epochs, seed)
    example = torch.zeros(1, 3, side, side)
    torch.onnx.export(
        network, (example,), str(work / "script.onnx"), dynamo=True, external_data=False
    )
    options = session_options()
    session = load_onnxruntime().InferenceSession(
        (work / "script.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    (name,) = (entry.name for entry in session.get_inputs())
    images = test_images(folder, side)
    right = sum(
        int(session.run(None, {name: image[None].numpy()})[0].argmax() == label)
        for image, label in images
    )
    accuracy = round(100 * right / len(images), 2)
    with replacing(done) as part:
        part.write_text(json.dumps({"settings": settings, "accuracy": accuracy}), "utf-8")
    return accuracy


def _folder(argument: str) -> tuple[str, Path]:
    name, _, path = argument.partition("=")
    return name, Path(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=_folder, metavar="NAME=FOLDER")
    parser.add_argument("--work", type=Path, help="directory of runs and bundles")
    parser.add_argument("--side", type=int, default=224, help="side of the script's images")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", type=Path, default=HERE / "photographs.json")
    parser.add_argument("--again", action="store_true", help="measure what the JSON file has too")
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    if not arguments.write_docs and not (arguments.folders and arguments.work):
        parser.error("name at least one folder, and --work")
    return arguments


if __name__ == "__main__":
    main()
