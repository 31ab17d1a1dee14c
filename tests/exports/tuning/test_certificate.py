"""The number of samples needed, and the names of the samples certified on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.tuning.certificate import (
    divide,
    samples_for,
    samples_needed,
    selection_size,
    split_sha256,
)
from exports.tuning.statistics.score_test import drop_holds


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.003, 0.001), (0.004, 0.0)])
def test_the_samples_needed_are_enough_and_far_fewer_are_not(rates: tuple[float, float]) -> None:
    needed = samples_needed(*rates, 0.005, 0.95)
    assert needed is not None

    def holds(samples: int) -> bool:
        lost, gained = (round(rate * samples) for rate in rates)
        return drop_holds(lost, gained, samples, 0.005, 0.95)

    assert holds(round(1.1 * needed))
    assert not holds(round(0.7 * needed))


def test_no_number_of_samples_certifies_too_large_a_drop() -> None:
    assert samples_needed(0.02, 0.01, 0.01, 0.95) is None


@pytest.mark.parametrize(("count", "chosen_on"), [(101, 50), (902, 451), (903, 301), (5000, 1666)])
def test_a_third_of_many_samples_is_chosen_on_and_half_of_few(count: int, chosen_on: int) -> None:
    chosen, certified = divide(count)
    assert (len(chosen), len(certified)) == (chosen_on, count - chosen_on)
    assert sorted([*chosen, *certified]) == list(range(count))


def test_a_division_is_random_and_always_the_same() -> None:
    chosen, certified = divide(1500)
    again = divide(1500)
    assert (again[0] == chosen).all()
    assert (again[1] == certified).all()
    assert (chosen >= 750).sum() == pytest.approx(250, abs=50)


def test_the_division_of_a_bundle_of_an_earlier_version_is_its_own() -> None:
    chosen, certified = divide(5000, 2500)
    assert (len(chosen), len(certified)) == (2500, 2500)


def test_a_third_is_chosen_on_where_the_others_can_certify_half_a_point() -> None:
    def certify(count: int) -> bool:
        return drop_holds(0, 0, count - selection_size(count), 0.005, 0.95)

    assert certify(903)
    assert not certify(902)


@given(st.integers(1, 10**6))
def test_no_fewer_samples_leave_as_many_to_certify(certified_on: int) -> None:
    count = samples_for(certified_on)
    assert count - selection_size(count) >= certified_on
    assert count - 1 - selection_size(count - 1) < certified_on


def test_the_hash_depends_on_source_and_samples() -> None:
    one, other = divide(10)
    assert len({split_sha256(s, i) for s in ("a" * 64, "b" * 64) for i in (one, other)}) == 4
