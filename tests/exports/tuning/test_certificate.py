"""The number of samples needed, and the names of the samples certified on."""

from __future__ import annotations

import pytest

from exports.tuning.certificate import halves, samples_needed, split_sha256
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


def test_the_halves_are_disjoint_and_deterministic() -> None:
    chosen, certified = halves(101)
    assert (len(chosen), len(certified)) == (50, 51)
    assert sorted([*chosen, *certified]) == list(range(101))
    again = halves(101)
    assert (again[0] == chosen).all()
    assert (again[1] == certified).all()
    assert (halves(1000)[0] >= 500).sum() == pytest.approx(250, abs=50)


def test_the_hash_depends_on_source_and_samples() -> None:
    one, other = halves(10)
    assert len({split_sha256(s, i) for s in ("a" * 64, "b" * 64) for i in (one, other)}) == 4
