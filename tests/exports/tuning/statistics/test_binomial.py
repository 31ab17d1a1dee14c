"""Limits of a proportion agree with scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from exports.tuning.statistics.binomial import binomial, proportion_bound


@pytest.mark.parametrize(("count", "samples"), [(0, 30), (3, 100), (57, 2500), (99, 100)])
def test_the_limit_of_a_proportion_is_that_of_clopper_and_pearson(count: int, samples: int) -> None:
    expected = beta.ppf(0.95, count + 1, samples - count)
    assert proportion_bound(count, samples, 0.95) == pytest.approx(expected, rel=1e-9)
    assert proportion_bound(samples, samples, 0.95) == 1.0


@pytest.mark.parametrize("p", [0.0, 0.003, 0.4, 1.0])
def test_the_distribution_is_that_of_scipy(p: float) -> None:
    assert binomial(50, p) == pytest.approx(binom.pmf(np.arange(51), 50, p), abs=1e-12)
