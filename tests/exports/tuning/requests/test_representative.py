"""Labelled images are compared with the others, and differ if they do so by more than noise."""

from __future__ import annotations

import numpy as np

from exports.bundle.policy import Floats
from exports.tuning.requests.representative import compare
from exports.tuning.scaling import fit_scaling
from tests.exports.tuning.exits import table

SAMPLES = table(4000)
SCALING = fit_scaling(SAMPLES)
ROWS: list[Floats] = list(SAMPLES.logits.swapaxes(0, 1))


def test_random_labels_seldom_look_different() -> None:
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(200):
        order = rng.permutation(4000)[:700]
        chosen = [ROWS[n] for n in order]
        different += not compare(chosen[:200], chosen[200:], SCALING).alike
    assert different <= 4  # 0.6 are expected


def test_labels_for_mistakes_only_look_different() -> None:
    wrong = SAMPLES.logits[-1].argmax(axis=-1) != SAMPLES.labels
    mistakes = [ROWS[n] for n in np.flatnonzero(wrong)[:200]]
    others = [ROWS[n] for n in range(500)]
    found = compare(mistakes, others, SCALING)
    assert not found.alike
    assert "of 500 others" in found.sentence


def test_few_images_show_no_difference() -> None:
    assert compare(ROWS[:29], ROWS[100:200], SCALING).alike
    assert "Too few images" in compare(ROWS[:100], [], SCALING).sentence
