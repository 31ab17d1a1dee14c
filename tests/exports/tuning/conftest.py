"""Populations to draw from, and a coarse search for hundreds of draws."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from exports.bundle.reader import load_table, read_manifest
from exports.tuning.path import cross_validated_path
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import PolicyEvaluator, frontier
from tests.exports.bundles import INT8
from tests.exports.tuning.exits import one_measure, table


@pytest.fixture(scope="package")
def synthetic() -> PolicyEvaluator:
    """30,000 samples of three exits, by one measure."""
    samples = table(30_000)
    return one_measure(
        PolicyEvaluator.from_table(samples, fit_scaling(samples.take(np.arange(5000))))
    )


@pytest.fixture(scope="package")
def cifar() -> tuple[PolicyEvaluator, list[float]]:
    """The 5,000 samples of the bundle with four exits, by one measure, with the costs of its exits."""
    manifest = read_manifest(INT8)
    whole = PolicyEvaluator.from_table(load_table(INT8, manifest), manifest.scaling)
    return one_measure(whole), [float(entry.macs) for entry in manifest.exits]


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse grid, and one division into folds, for hundreds of choices."""
    monkeypatch.setattr("exports.tuning.path.frontier", partial(frontier, max_policies=343))
    monkeypatch.setattr(
        "exports.tuning.goal.cross_validated_path", partial(cross_validated_path, repeats=1)
    )
