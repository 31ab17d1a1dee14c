"""All figures of the benchmark."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grocery.bundles import ALONE, CASCADE, FRONTED, UNCHECKED, Workplace
from benchmarks.grocery.divisions import over_divisions
from benchmarks.grocery.images import ImageFiles, link_by_class, random_halves, read_folder
from benchmarks.grocery.logits import logits_of
from benchmarks.grocery.policies import (
    TARGETS,
    calibration_table,
    choose,
    cost_alone,
    in_hindsight,
    judge,
)
from benchmarks.grocery.times import answers_per_second, mean_milliseconds, stage_milliseconds
from benchmarks.grocery.tuned import write_tuned
from benchmarks.harness.load import pack
from benchmarks.harness.server import machine
from exports.bundle.policy import Floats
from exports.bundle.reader import Bundle, Table, load_bundle, load_table
from exports.options import Precision

Result = dict[str, Any]
# Of the test split into halves, beside the one that the rows are of.
DIVISIONS = 10


class Evaluation:
    """The images, and the logits of bundles on them, which are kept in `directory`."""

    def __init__(self, val: ImageFiles, test: ImageFiles, directory: Path, seed: int) -> None:
        self.val, self.test = val, test
        self._directory = directory
        self.tuned_on, self.judged_on = random_halves(len(test.files), seed)

    def logits(self, bundle: Bundle) -> tuple[Floats, Floats]:
        """On val and on test, float32 [K, N, C]."""
        return (
            logits_of(bundle, self.val, self._directory),
            logits_of(bundle, self.test, self._directory),
        )

    def val_and_test(self, bundle: Bundle) -> tuple[Table, Table]:
        """The logits with the labels."""
        val, test = self.logits(bundle)
        return Table(val, self.val.labels), Table(test, self.test.labels)

    def judged(self, bundle: Bundle) -> Table:
        """What policies are judged on."""
        _, test = self.logits(bundle)
        return Table(test[:, self.judged_on], self.test.labels[self.judged_on])

    def calibration(self, bundle: Bundle) -> dict[str, tuple[Floats, np.ndarray]]:
        """Logits and labels of the images that policies can be chosen on, by their name."""
        val, test = self.logits(bundle)
        half, labels = test[:, self.tuned_on], self.test.labels[self.tuned_on]
        both = np.concatenate([val, half], axis=1)
        return {
            "val": (val, self.val.labels),
            "val and half of test": (both, np.concatenate([self.val.labels, labels])),
        }


def measure(
    place: Workplace, precisions: Sequence[Precision], seed: int, seconds: float, rounds: int
) -> Result:
    """The result as it is written. Rates over HTTP are left out if `seconds` is 0."""
    paths = {
        (kind, precision): place.bundle(kind, precision)
        for precision in precisions
        for kind in (ALONE, FRONTED, CASCADE)
    }
    bundles = {key: load_bundle(path) for key, path in paths.items()}
    spec = bundles[ALONE, precisions[0]].manifest
    val, test = (
        read_folder(place.photos / name, spec.labels, spec.input.height) for name in ("val", "test")
    )
    evaluation = Evaluation(val, test, place.work / "logits", seed)
    link_by_class(test, evaluation.judged_on, spec.labels, place.work / "judged")
    tuned = place.work / "tuned"
    shutil.rmtree(tuned, ignore_errors=True)
    rows, served = tuned_rows(bundles, evaluation, tuned)
    named = {" ".join(key): bundle for key, bundle in bundles.items()}
    milliseconds = stage_milliseconds(named, val.images[:1])
    for row in rows:
        stages = milliseconds[f"{row['configuration']} {row['precision']}"]
        row["ms"] = mean_milliseconds(stages, row["shares"])
        row["rate"] = None
    if seconds:
        packed = place.work / "judged.npz"
        # By class, a slow server would get other images than a fast one.
        order = np.random.default_rng(seed).permutation(evaluation.judged_on)
        pack([test.files[n].read_bytes() for n in order.tolist()], packed)
        rates = answers_per_second(served, packed, seconds, rounds)
        for row in rows:
            row["rate"] = rates[_name(row)]
    return {
        "machine": machine(),
        "small": place.small_run,
        "pictures": {
            "val": len(val.files),
            "tuned_on": len(evaluation.tuned_on),
            "judged_on": len(evaluation.judged_on),
        },
        "seconds": seconds,
        "rounds": rounds,
        "stage_ms": milliseconds,
        "calibrations": calibrations(place, load_bundle(place.bundle(FRONTED, "fp32")), evaluation),
        "rows": rows,
        "limits": limits(bundles, evaluation),
    }


def tuned_rows(
    bundles: dict[tuple[str, str], Bundle], evaluation: Evaluation, place: Path
) -> tuple[list[Result], dict[str, Path]]:
    """Every bundle for every aim, judged; and the bundles with these policies, by the row's name."""
    place.mkdir(parents=True)
    rows: list[Result] = []
    served: dict[str, Path] = {}
    for (kind, precision), bundle in bundles.items():
        logits, labels = evaluation.calibration(bundle)["val and half of test"]
        for aim in TARGETS:
            if kind == ALONE and aim != "accuracy":
                continue
            row: Result = {"configuration": kind, "precision": precision, "aim": aim}
            path = place / _name(row).replace(" ", "-")
            table = calibration_table(logits, labels, aim)
            chosen = write_tuned(bundle, table, aim, path)
            row["certified"] = chosen.policy.certificate is not None
            row |= judge(chosen.policy, chosen.scaling, evaluation.judged(bundle), _costs(bundle))
            if aim == "half":
                both = evaluation.val_and_test(bundle)
                row["divisions"] = over_divisions(*both, _costs(bundle), aim, DIVISIONS)
            rows.append(row)
            served[_name(row)] = path
    return rows, served


def calibrations(place: Workplace, bundle: Bundle, evaluation: Evaluation) -> list[Result]:
    """The front for agreement, chosen on different images, and what is then true of the judged ones."""
    made = load_bundle(place.bundle(UNCHECKED, "fp32"))
    seen = load_table(made.path, made.manifest)
    choices = {"held out of train": (made, seen.logits, seen.labels)} | {
        name: (bundle, logits, labels)
        for name, (logits, labels) in evaluation.calibration(bundle).items()
    }
    rows = []
    for name, (own, logits, labels) in choices.items():
        costs = _costs(own)
        chosen = choose(calibration_table(logits, labels, "agreement"), costs, "agreement")
        stats = chosen.choice.stats
        rows.append(
            {
                "pictures": name,
                "count": len(labels),
                "certified": chosen.policy.certificate is not None,
                "expected": {
                    "agreement": round(100 * (1 - stats.drop), 2),
                    "cost": round(stats.mean_cost(costs) / cost_alone(costs), 4),
                },
                "found": judge(chosen.policy, chosen.scaling, evaluation.judged(own), costs),
            }
        )
    return rows


def limits(bundles: dict[tuple[str, str], Bundle], evaluation: Evaluation) -> list[Result]:
    """What the best threshold in hindsight reaches, of every bundle with a smaller network."""
    rows = []
    for (kind, precision), bundle in bundles.items():
        if kind == ALONE:
            continue
        logits, labels = evaluation.calibration(bundle)["val and half of test"]
        costs = _costs(bundle)
        scaling = choose(calibration_table(logits, labels, "half"), costs, "half").scaling
        found = in_hindsight(scaling, evaluation.judged(bundle), costs)
        rows.append({"configuration": kind, "precision": precision, **found})
    return rows


def _costs(bundle: Bundle) -> list[int]:
    """The cost of leaving at each exit."""
    return [entry.macs for entry in bundle.manifest.exits]


def _name(row: Result) -> str:
    return f"{row['configuration']} {row['aim']} {row['precision']}"
