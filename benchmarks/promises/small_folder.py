"""Takes a small folder of photographs through train, export, tune and serve, and compares every figure that
these print with what images show that none of them saw.

    python -m benchmarks.promises.small_folder data/grocery/train --pictures 600 --work runs-promises

Draws `--pictures` images of FOLDER, trains on them with the defaults, exports, runs `offramp tune`, and asks
the server about all other images of FOLDER, with the bundle's policy and at full depth. What is done already
in --work is used again, so a stopped benchmark goes on where it was. Writes a JSON file; `--write-docs` puts
it into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.docs import publish, table
from benchmarks.harness.server import machine, serving
from exports.bundle.manifest import MANIFEST
from exports.bundle.reader import read_manifest
from training.auto_train import run_name

RESULTS = Path(__file__).parents[1]
Result = dict[str, Any]
Z_95 = 1.96


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="with a folder for each class")
    parser.add_argument("--pictures", type=int, default=600, help="images to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs-promises"))
    parser.add_argument("--json", type=Path, default=RESULTS / "small-folder.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/your-own-images.md", "small-folder")


def run(arguments: argparse.Namespace) -> Result:
    """The result as it is written."""
    work = arguments.work
    photos = divide(arguments.folder, work, arguments.pictures, arguments.seed)
    runs, bundle = work / "runs", work / "bundle"
    if not (bundle / MANIFEST).is_file():
        began = time.perf_counter()
        printed = offramp("train", "--data", photos, "--runs", runs, "--device", "cpu", "--resume")
        took = {"forecast": _forecast_s(printed), "train": time.perf_counter() - began}
        (work / "seconds.json").write_text(json.dumps(took), "utf-8")
        offramp("export", runs / run_name(photos.name), "-o", bundle, "--data", photos)
    offramp("tune", bundle, "--json", work / "tune.json")
    tuned = json.loads((work / "tune.json").read_text("utf-8"))
    with serving(bundle) as (port, _):
        answers = ask(port, work / "unseen")
    manifest = read_manifest(bundle)
    return {
        "machine": machine(),
        "folder": arguments.folder.parent.name,
        "pictures": arguments.pictures,
        "seed": arguments.seed,
        "unseen": len(answers["early_right"]),
        "seconds": json.loads((work / "seconds.json").read_text("utf-8")),
        "rows": compare(tuned, answers, [entry.macs for entry in manifest.exits]),
    }


def divide(folder: Path, work: Path, count: int, seed: int) -> Path:
    """`work`/photos with `count` images of `folder` drawn at random, `work`/unseen with the others."""
    photos, unseen = work / "photos", work / "unseen"
    if unseen.is_dir():
        return photos
    files = sorted(file for file in folder.glob("*/*") if file.is_file())
    order = np.random.default_rng(seed).permutation(len(files))
    for place, chosen in ((photos, order[:count]), (unseen, order[count:])):
        part = place.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for number in chosen:
            target = part / files[number].parent.name / files[number].name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[number], target)
        part.rename(place)
    return photos


def offramp(*arguments: object) -> str:
    """Run the command `offramp`; what it printed."""
    code = "import sys; from offramp.cli import main; sys.argv[0] = 'offramp'; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    print(done.stdout, flush=True)
    return done.stdout


def _forecast_s(printed: str) -> float:
    """The seconds that `offramp train` stated before it started."""
    found = re.search(r"forecast: about (\d+):(\d+):(\d+)", printed)
    if found is None:
        raise ValueError("offramp train printed no forecast")
    hours, minutes, seconds = map(int, found.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def ask(port: int, unseen: Path) -> dict[str, list[Any]]:
    """What the server answers about every image of `unseen`, with its policy and with the ensemble."""
    found: dict[str, list[Any]] = {
        key: [] for key in ("early_right", "full_right", "exit", "confidence")
    }
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for file in sorted(unseen.glob("*/*")):
        early, full = (
            _answer(connection, path, file.read_bytes())
            for path in ("/v1/classify", "/v1/classify?mode=ensemble")
        )
        found["early_right"].append(early["label"] == file.parent.name)
        found["full_right"].append(full["label"] == file.parent.name)
        found["exit"].append(early["exit"])
        found["confidence"].append(early["confidence"])
    return found


def _answer(connection: http.client.HTTPConnection, path: str, image: bytes) -> dict[str, Any]:
    connection.request("POST", path, image, {"Content-Type": "image/jpeg"})
    with connection.getresponse() as response:
        content = json.loads(response.read())
    if response.status != 200:
        raise ValueError(f"{path} answered {response.status}: {content}")
    (result,) = content["predictions"]
    return dict(result)


def compare(
    tuned: Result, answers: dict[str, list[Any]], macs: Sequence[float]
) -> list[dict[str, Any]]:
    """A row for each statement about the policy: what `offramp tune` and the server say, what the unseen
    images show, whether it was kept."""
    early, full = np.array(answers["early_right"]), np.array(answers["full_right"])
    lost = full.astype(float) - early
    drop, error = 100 * lost.mean(), 100 * lost.std() / np.sqrt(len(lost))
    accuracy = 100 * early.mean()
    accuracy_error = 100 * early.std() / np.sqrt(len(early))
    confidence = 100 * float(np.mean(answers["confidence"]))
    cost = float(np.array(macs)[np.array(answers["exit"]) - 1].mean())
    chosen, goal = tuned["chosen"], tuned["goal"]
    low, high = chosen["drop_interval"]
    samples = tuned["source"]["measured_on"]
    spread = 100 * np.sqrt(chosen["accuracy"] / 100 * (1 - chosen["accuracy"] / 100) / samples)
    room = Z_95 * float(np.hypot(spread, accuracy_error))
    measured_drop = f"{drop:.2f} ± {error:.2f}"
    rows = [
        (
            "drop below the ensemble, points: the interval",
            f"{low:.2f} to {high:.2f}",
            measured_drop,
            low - Z_95 * error <= drop <= high + Z_95 * error,
        ),
        (
            "accuracy, %",
            f"{chosen['accuracy']:.1f} on {samples} images",
            f"{accuracy:.1f} ± {accuracy_error:.1f}",
            abs(accuracy - chosen["accuracy"]) <= room or accuracy > chosen["accuracy"],
        ),
        (
            "mean cost, M MACs",
            f"{chosen['mean_macs'] / 1e6:.1f}",
            f"{cost / 1e6:.1f}",
            cost <= 1.1 * chosen["mean_macs"],
        ),
        (
            "mean confidence is the share of right answers, %",
            f"{confidence:.1f}",
            f"{accuracy:.1f} ± {accuracy_error:.1f}",
            abs(accuracy - confidence) <= 5,
        ),
    ]
    if goal["kind"] == "max_drop":
        limit = 100 * goal["value"]
        row = ("drop below the ensemble, points: the goal", f"at most {limit:g}", measured_drop)
        rows.insert(0, (*row, drop <= limit))
    return [
        {"statement": statement, "stated": stated, "unseen": unseen, "kept": bool(kept)}
        for statement, stated, unseen, kept in rows
    ]


def section(result: Result) -> str:
    """The section of the guide."""
    rows = [
        (row["statement"], row["stated"], row["unseen"], "yes" if row["kept"] else "**no**")
        for row in result["rows"]
    ]
    seconds = result["seconds"]
    return (
        f"{result['pictures']} photographs of {result['folder']}, drawn at random, through train, export, "
        f"`offramp tune` and the server with nothing but defaults; the {result['unseen']:,} others were sent "
        "to the server (`python -m benchmarks.promises.small_folder`). "
        f"On {result['machine']}; training was forecast to take {seconds['forecast'] / 60:.0f} minutes "
        f"and took {seconds['train'] / 60:.0f}.\n\n"
        f"{table(('statement', 'stated', 'unseen images', 'kept'), rows)}\n"
    )


if __name__ == "__main__":
    main()
