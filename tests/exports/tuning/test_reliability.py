"""Calibration error as in Guo et al. 2017; AUROC over pairs of a correct and a wrong answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.bundle.reader import load_table, read_manifest
from exports.tuning.reliability import confidence_quality, failure_auroc, reliability
from tests.exports.bundles import INT8


def test_an_error_computed_by_hand() -> None:
    # Four bins: (0.25, 0.5] has 0.4 and 0.5, half of them correct; (0.75, 1] has 0.8, 0.9 and 1.0,
    # one of three correct. ECE = 2/5 |1/2 - 0.45| + 3/5 |1/3 - 0.9| = 0.02 + 0.34.
    confidence = np.array([0.4, 0.5, 0.8, 0.9, 1.0], np.float32)
    correct = np.array([True, False, True, False, False])
    bins = reliability(confidence, correct, bins=4)
    np.testing.assert_allclose(bins.confidence, [0.45, 0.9], rtol=1e-6)
    np.testing.assert_allclose(bins.accuracy, [0.5, 1 / 3])
    np.testing.assert_allclose(bins.share, [0.4, 0.6])
    assert bins.expected_calibration_error == pytest.approx(0.36)


def test_calibrated_confidence_has_no_error() -> None:
    confidence = np.repeat(np.array([0.25, 0.75], np.float32), 4)
    correct = np.array([True, False, False, False, True, True, True, False])
    assert reliability(confidence, correct).expected_calibration_error == pytest.approx(0)


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.6, 0.9]), st.booleans()), min_size=1))
def test_auroc_is_the_share_of_pairs_in_order(samples: list[tuple[float, bool]]) -> None:
    pairs = [
        (a > b) + (a == b) / 2
        for (a, correct), (b, other) in itertools.product(samples, samples)
        if correct and not other
    ]
    confidence = np.array([c for c, _ in samples], np.float32)
    auroc = failure_auroc(confidence, np.array([correct for _, correct in samples]))
    assert auroc == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_every_exit_and_running_ensemble_has_a_quality() -> None:
    manifest = read_manifest(INT8)
    table = load_table(INT8, manifest)
    single, running = confidence_quality(table, manifest.scaling)
    assert len(single) == len(running) == 4
    assert single[0].ece_after == pytest.approx(running[0].ece_after)  # exit 1 is its own ensemble
    assert [q.temperature for q in running] == list(manifest.scaling.running_temperatures)
    for quality in (*single, *running):
        assert 0 <= quality.ece_before <= 1
        assert quality.auroc_after is not None
        assert 0.5 < quality.auroc_after < 1
    assert single[3].ece_after < single[3].ece_before
