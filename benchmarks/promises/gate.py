"""Tries a learned gate in place of the measures of confidence. Nothing ships from it.

    OFFRAMP_DATA=data python -m benchmarks.promises.gate      # some minutes on one core

A logistic regression per exit of the ResNet-18 bundle predicts from ten measures whether the running
ensemble's answer is that of all exits. Gates and thresholds are chosen on the held-out samples of CIFAR-100,
with gates fitted out of fold, and compared at equal drop on the test images, of which bootstrap samples give
the scatter.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.bundles import RESNET18_FP32, RESNET18_INT8
from exports.bundle.policy import Floats, Scaling, calibrated, measure_confidence, softmax
from exports.bundle.reader import Table, load_bundle, load_table
from exports.stage_runner import StageRunner
from exports.tuning.path import cautious_path
from exports.tuning.search import FrontierPoint, PolicyEvaluator
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

BUNDLES = (RESNET18_INT8, RESNET18_FP32)
DROPS = (0.0025, 0.005, 0.01, 0.02)
FOLDS = 5
BOOTSTRAPS = 60
Bools = NDArray[np.bool_]


def main(argv: Sequence[str] | None = None) -> None:
    """Print what the gate saves at each drop, for both precisions of the ResNet-18 bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    test = load_dataset(DataRecipe(name="cifar100", held_out=1), parser.parse_args(argv).data).test
    for path in BUNDLES:
        bundle = load_bundle(path)
        full = bundle.manifest.exits[-1].macs
        costs = [entry.macs / full for entry in bundle.manifest.exits]
        held_out = load_table(path, bundle.manifest)
        unseen = Table(StageRunner(bundle.stages).logits(test.images), test.labels)
        print(f"{bundle.manifest.name}, {bundle.manifest.precision}")
        for drop, saved in compare(held_out, unseen, bundle.manifest.scaling, costs).items():
            print(
                f"  at {100 * drop:g} points: {100 * saved.mean():.2f} ± {100 * saved.std():.2f} %"
            )


def compare(
    held_out: Table, test: Table, scaling: Scaling, costs: Sequence[float]
) -> dict[float, NDArray[np.float64]]:
    """For each of DROPS the share of the thresholds' mean cost that the gate saves, [BOOTSTRAPS]."""
    thresholds = (
        PolicyEvaluator.from_table(held_out, scaling),
        PolicyEvaluator.from_table(test, scaling),
    )
    gates = gated(thresholds, features(held_out, scaling), features(test, scaling))
    paths = [cautious_path(chosen_on, costs) for chosen_on, _ in (thresholds, gates)]
    random = np.random.default_rng(0)
    saved: dict[float, list[float]] = {drop: [] for drop in DROPS}
    for _ in range(BOOTSTRAPS):
        index = random.integers(0, len(test.labels), len(test.labels))
        samples = [unseen.take(index) for _, unseen in (thresholds, gates)]
        for drop in DROPS:
            plain, gate = (
                cost_at(drop, path, part, costs) for path, part in zip(paths, samples, strict=True)
            )
            saved[drop].append(1 - gate / plain)
    return {drop: np.array(values) for drop, values in saved.items()}


@dataclass(frozen=True)
class Features:
    """The measures [N, F] at every exit but the last, and whether the answer there is the ensemble's [N]."""

    measures: list[NDArray[np.float64]]
    agrees: list[Bools]


def features(table: Table, scaling: Scaling) -> Features:
    """Measures of the exit and the running ensemble, and whether they agree with each other and with the
    exit before."""
    logits, exits = list(table.logits), len(table.logits)
    answers = [calibrated(logits, k, "running", scaling).argmax(1) for k in range(1, exits + 1)]
    measures = []
    for k in range(1, exits):
        columns: list[NDArray[np.generic]] = []
        for combine in ("single", "running"):
            p = softmax(calibrated(logits, k, combine, scaling))  # type: ignore[arg-type]
            first, margin = p.max(axis=1), measure_confidence(p, "margin")
            columns += [np.log(first), np.log1p(-np.minimum(first, 1 - 1e-6))]
            columns += [np.log(margin + 1e-6), measure_confidence(p, "entropy")]
        columns.append(table.logits[k - 1].argmax(axis=1) == answers[k - 1])
        columns.append(answers[max(k - 2, 0)] == answers[k - 1])
        measures.append(np.stack(columns, axis=1).astype(np.float64))
    return Features(measures, [answer == answers[-1] for answer in answers[:-1]])


def gated(
    thresholds: tuple[PolicyEvaluator, PolicyEvaluator], held_out: Features, test: Features
) -> tuple[PolicyEvaluator, PolicyEvaluator]:
    """Evaluators with the gate's probability as the only measure; out of fold on the held-out samples."""
    every = np.arange(thresholds[0].samples)
    out_of_fold = np.ones((len(held_out.measures) + 1, len(every)), np.float32)
    order = np.random.default_rng(0).permutation(every)
    for fold in range(FOLDS):
        left_out = order[fold::FOLDS]
        fitted = np.setdiff1d(every, left_out)
        out_of_fold[:, left_out] = predict(
            held_out, fitted, [m[left_out] for m in held_out.measures]
        )
    unseen = predict(held_out, every, test.measures)

    def evaluator(whole: PolicyEvaluator, confidence: Floats) -> PolicyEvaluator:
        return PolicyEvaluator(
            {("max_prob", "running"): confidence}, whole.correct, whole.ensemble_correct
        )

    return evaluator(thresholds[0], out_of_fold), evaluator(thresholds[1], unseen)


def predict(
    source: Features, fitted: NDArray[np.int64], measures: Sequence[NDArray[np.float64]]
) -> Floats:
    """The gates' probabilities [K, M] of `measures`, fitted on the samples `fitted` of `source`."""
    rows = [np.ones(len(measures[0]), np.float32)]
    for known, agrees, asked in zip(source.measures, source.agrees, measures, strict=True):
        mean, scale = known[fitted].mean(axis=0), known[fitted].std(axis=0) + 1e-6
        gate = LogisticRegression(max_iter=500).fit((known[fitted] - mean) / scale, agrees[fitted])
        rows.insert(-1, gate.predict_proba((asked - mean) / scale)[:, 1].astype(np.float32))
    return np.stack(rows)


def cost_at(
    drop: float, path: Sequence[FrontierPoint], evaluator: PolicyEvaluator, costs: Sequence[float]
) -> float:
    """The mean cost at which `path` first loses at most `drop`, between the policies next to it."""
    stats = [evaluator.evaluate(point.policy) for point in path]
    spent = np.array([each.mean_cost(costs) for each in stats])
    order = np.argsort(spent)
    least = np.minimum.accumulate(np.array([each.drop for each in stats])[order])
    return float(np.interp(-drop, -least, spent[order]))


if __name__ == "__main__":
    main()
