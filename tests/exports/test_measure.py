"""What a calibration table keeps of logits, and what agreement is measured with after a conversion."""

from __future__ import annotations

import numpy as np
import pytest

from exports.bundle.errors import ExportError
from exports.bundle.policy import softmax
from exports.bundle.reader import Table, as_stored
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


def test_a_constant_added_to_the_logits_changes_nothing_that_is_stored() -> None:
    # Quarters, which float32 adds exactly to 20,000, where float16 knows multiples of 16 only.
    quarters = np.random.default_rng(0).integers(-40, 40, (2, 50, 3))
    logits = quarters.astype(np.float32) / np.float32(4)
    labels = np.zeros(50, np.int64)
    stored = as_stored(Table(logits, labels))
    far = as_stored(Table(logits + np.float32(20_000), labels))
    assert np.array_equal(far.logits, stored.logits)
    np.testing.assert_allclose(softmax(stored.logits), softmax(logits), rtol=1e-5)
    assert np.array_equal(as_stored(stored).logits, stored.logits)


def test_logits_too_far_apart_for_the_table_are_refused() -> None:
    logits = np.zeros((2, 5, 3), np.float32)
    logits[1, 2, 0] = -70_000
    with pytest.raises(ExportError, match="logits of exit 2 lie up to 7e\\+04 apart"):
        as_stored(Table(logits, np.zeros(5, np.int64)))
