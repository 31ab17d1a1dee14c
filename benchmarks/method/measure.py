"""Measures one finished run of a table on the test split."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exports.bundle.errors import TuningError
from exports.bundle.policy import Floats, Policy, Scaling, running_ensemble
from exports.bundle.reader import Table
from exports.tuning.goal import Goal, TuningData
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import PolicyEvaluator
from exports.tuning.select import choose
from training.checkpoint import load_checkpoint
from training.data.batches import DeviceDataset
from training.data.dataset import hold_out
from training.data.load import load_dataset
from training.evaluate import predict
from training.models.cost import count_macs
from training.models.multi_exit import MultiExit, Normalize

# Mean costs under early exit, as shares of full depth.
BUDGETS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NO_FILE = "0" * 64  # the tables are in no file


def measure_run(directory: Path, data_root: Path) -> dict[str, Any]:
    """Accuracies in percent of the run in `directory`, and which test images are answered correctly.

    `fitted` is the ensemble with weights fitted on the held-out split, `early` the accuracy of the policy
    chosen there for each of BUDGETS, None where no policy is as cheap. `correct` has one bit an image, for
    every exit, the ensemble of equal weights and the fitted one. Raises CheckpointError or DataError.
    """
    network, config = load_checkpoint(directory)
    recipe = config.recipe.data
    data = load_dataset(recipe, data_root)
    _, held_out = hold_out(data.train.labels, recipe.held_out, recipe.held_out_seed)
    normalize = Normalize(config.mean, config.std)
    tables = []
    for split in (data.train.take(held_out), data.test):
        logits = predict(network, normalize, DeviceDataset.of(split, torch.device("cpu")))
        tables.append(Table(logits.numpy(), split.labels))
    return figures(tables[0], tables[1], exit_macs(network, config.image_size))


def figures(held_out: Table, test: Table, macs: Sequence[int]) -> dict[str, Any]:
    """As `measure_run`, from the logits on both splits and the cost of leaving at each exit."""
    scaling = fit_scaling(held_out)
    exits = len(test.logits)
    equal = running_ensemble(list(test.logits), exits, (1 / exits,) * exits)
    fitted = running_ensemble(list(test.logits), exits, scaling.weights)
    correct = [_correct(logits, test) for logits in (*test.logits, equal, fitted)]
    accuracies = [round(100 * float(row.mean()), 2) for row in correct]
    return {
        "images": len(test.labels),
        "macs": list(macs),
        "exits": accuracies[:exits],
        "ensemble": accuracies[exits],
        "fitted": accuracies[exits + 1],
        "weights": [round(weight, 3) for weight in scaling.weights],
        "early": early_exit(held_out, test, scaling, macs) if exits > 1 else [],
        "correct": [pack(row) for row in correct],
    }


def early_exit(
    held_out: Table, test: Table, scaling: Scaling, macs: Sequence[int]
) -> list[dict[str, float] | None]:
    """For each of BUDGETS the test accuracy and the mean cost of the policy chosen on `held_out`."""
    data = TuningData.from_table(held_out, scaling, NO_FILE)
    judge = PolicyEvaluator.from_table(test, scaling)
    points: list[dict[str, float] | None] = []
    for share in BUDGETS:
        try:
            policy: Policy = choose(data, macs, Goal("budget", share * macs[-1])).policy
        except TuningError:
            points.append(None)
            continue
        stats = judge.evaluate(policy)
        points.append(
            {
                "accuracy": round(100 * stats.accuracy, 2),
                "cost": round(stats.mean_cost(macs) / macs[-1], 3),
            }
        )
    return points


@torch.no_grad()
def exit_macs(network: MultiExit, size: tuple[int, int]) -> list[int]:
    """Multiply-accumulates of leaving at each exit: stages and heads up to it."""
    features, total, costs = torch.zeros(1, 3, *size), 0, []
    for segment, head in zip(network.segments(), network.heads, strict=True):
        total += count_macs(segment, features)
        features = segment(features)
        total += count_macs(head, features)
        costs.append(total)
    return costs


def pack(correct: NDArray[np.bool_]) -> str:
    """One bit an image, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str, images: int) -> NDArray[np.bool_]:
    """What `pack` was given, for that many images."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=images)
    return bits.astype(bool)


def _correct(logits: Floats, table: Table) -> NDArray[np.bool_]:
    correct: NDArray[np.bool_] = logits.argmax(axis=-1) == table.labels
    return correct
