"""The interval of a confidence sequence; its error rates are simulated where it is used."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln

from serving.confidence_sequence import BernoulliSequence


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.5))
def test_the_interval_is_where_the_mixture_ratio_is_below_its_limit(
    events: int, others: int, level: float
) -> None:
    found = BernoulliSequence(level, events + others, events)
    low, high = found.interval()
    assert 0 <= low <= found.rate <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            ratio = betaln(events + 0.5, others + 0.5) - betaln(0.5, 0.5)
            ratio -= events * math.log(end) + others * math.log1p(-end)
            assert ratio == pytest.approx(-math.log(level), abs=1e-3)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0, 0.99))
def test_a_sequence_is_above_what_lies_below_its_interval(
    events: int, others: int, bound: float
) -> None:
    found = BernoulliSequence(0.01, events + others, events)
    low, _ = found.interval()
    if abs(low - bound) > 1e-6:
        assert found.is_above(bound) == (low > bound)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 1))
def test_a_sequence_is_below_what_lies_above_its_interval(
    events: int, others: int, bound: float
) -> None:
    found = BernoulliSequence(0.01, events + others, events)
    _, high = found.interval()
    if abs(high - bound) > 1e-6:
        assert found.is_below(bound) == (high < bound)
