"""What agreement is measured with after a conversion."""

from __future__ import annotations

import numpy as np

from exports.bundle.reader import Table
from exports.measure import Measurement
from exports.tuning.scaling import fit_agreement


def test_after_a_conversion_agreement_is_with_the_converted_network() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 50, 3)).astype(np.float32)
    before = Table(logits, logits[-1].argmax(axis=1))
    scaling = fit_agreement(before)
    converted = logits.copy()
    converted[-1, :5] = np.roll(logits[-1, :5], 1, axis=1)  # other answers than before
    own = Measurement(
        Table(converted, before.labels), Table(converted[:, :20], before.labels[:20]), scaling
    ).with_own_answers()
    for table, count in ((own.held_out, 50), (own.test, 20)):
        assert np.array_equal(table.labels, converted[-1, :count].argmax(axis=1))
        assert own.accuracies(table)[-1].single == 100
    assert (own.held_out.labels != before.labels).sum() == 5
