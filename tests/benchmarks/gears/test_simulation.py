"""The simulated server with the controller: no oscillation, the floor kept, and recovery.

The network takes 6 ms in the dearest gear and 2.5 in the cheapest, besides 1.5 ms for decoding and HTTP.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gears.simulation import (
    Host,
    Outcome,
    Rules,
    constant,
    gear_costs,
    simulate,
    trace,
)
from serving.scheduling.costs import CostTable

SHARES = tuple(
    (round(left, 3), 0.0, round(1 - left, 3)) for left in np.linspace(0.0, 0.9, 8).tolist()
)
HOST = Host(
    CostTable([{size: size * 2e-3 for size in (1, 2, 4)}] * 3),
    stages=3,
    decode_s=5e-4,
    request_s=1e-3,
    refuse_s=1e-4,
)
# Images a second that full depth answers.
CAPACITY = 1 / 7.5e-3
TARGET_S = 0.2
RULES = Rules(SHARES, max_wait_s=0.5, target_s=TARGET_S)
# After the end of a spike, as the guide says: 15 seconds and one for each gear.
RECOVERY_S = 15.0 + len(SHARES) - 1


def shifts_after(outcome: Outcome, second: float) -> int:
    return sum(at > second for at, _ in outcome.gears)


def p99(outcome: Outcome, since: float = 0.0) -> float:
    counted = ~outcome.refused & (outcome.arrived >= since)
    return float(np.percentile(outcome.latency[counted], 99))


@pytest.mark.parametrize("load", [0.3, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 2.5])
def test_nothing_oscillates_under_constant_load_at_any_level(load: float) -> None:
    """Once it has settled it shifts at most once in two minutes, since bursts are random."""
    found = simulate(HOST, RULES, constant(load * CAPACITY, 150))
    assert shifts_after(found, 30) <= 1
    if load <= 0.7:
        assert found.gears == [(0.0, 0)]
    if load <= 1.6:
        assert p99(found, since=30) < TARGET_S
        assert not found.refused[found.arrived > 1].any()


@pytest.mark.parametrize("believed", [0.3, 3.0])
def test_wrong_costs_slow_the_shifts_down_and_do_not_swing(believed: float) -> None:
    """The controller believes that gears differ by a third, or by three times of what they do."""
    costs = gear_costs(HOST.costs, SHARES)
    wrong = [costs[-1] + believed * (cost - costs[-1]) for cost in costs]
    found = simulate(HOST, RULES, constant(1.2 * CAPACITY, 300), believed=wrong)
    assert shifts_after(found, 60) <= 8
    assert p99(found, since=60) < TARGET_S


@pytest.mark.parametrize("peak", [1.5, 3.0])
@pytest.mark.parametrize("length", [2.0, 15.0])
def test_gear_0_is_back_within_the_stated_time_after_a_spike(peak: float, length: float) -> None:
    load = [(10, 0.5 * CAPACITY), (length, peak * CAPACITY), (RECOVERY_S + 5, 0.5 * CAPACITY)]
    found = simulate(HOST, RULES, trace(load))
    assert max(gear for _, gear in found.gears) == len(SHARES) - 1
    assert found.gears[-1][1] == 0
    assert found.gears[-1][0] <= 10 + length + RECOVERY_S


def test_gears_are_shifted_before_anything_is_refused() -> None:
    """The cheapest gear can answer 1.5 times full depth's capacity, so nothing need be refused."""
    arrivals = trace([(5, 0.5 * CAPACITY), (10, 1.5 * CAPACITY), (5, 0.5 * CAPACITY)])
    assert not simulate(HOST, RULES, arrivals).refused.any()
    assert simulate(HOST, Rules(SHARES), arrivals).refused.mean() > 0.1


def test_only_what_exceeds_the_cheapest_gear_is_refused() -> None:
    arrivals = constant(3 * CAPACITY, 30)
    geared = simulate(HOST, RULES, arrivals).refused.mean()
    assert geared < 0.6 * simulate(HOST, Rules(SHARES), arrivals).refused.mean()


def test_no_gear_below_the_floor_is_used() -> None:
    """The gears that do not keep it are not among the shares."""
    found = simulate(HOST, Rules(SHARES[:3], target_s=TARGET_S), constant(3 * CAPACITY, 10))
    assert set(found.gear.tolist()) <= {0, 1, 2}


def test_images_leave_where_the_shares_of_their_gear_say() -> None:
    found = simulate(HOST, Rules(SHARES[4:5]), constant(0.4 * CAPACITY, 60))
    left = np.bincount(found.exit, minlength=4)[1:] / len(found.exit)
    assert left == pytest.approx(SHARES[4], abs=0.03)


def test_waits_are_those_of_queueing_theory() -> None:
    """One stage without batches is an M/D/1 queue, whose mean wait is that of Pollaczek and Khinchine."""
    host = Host(CostTable([{1: 1e-2}]), 1, decode_s=0.0, request_s=0.0)
    found = simulate(host, Rules([[1.0]], max_wait_s=9.0), constant(70.0, 600))
    load = 0.7
    expected = 1e-2 * (1 + load / (2 * (1 - load)))
    assert found.latency.mean() == pytest.approx(expected, rel=0.06)


def test_two_workers_answer_twice_as_much() -> None:
    host = Host(HOST.costs, 3, workers=2, decode_s=5e-4, request_s=1e-3)
    found = simulate(host, Rules(SHARES[:1]), constant(1.8 * CAPACITY, 30))
    assert found.refused.mean() < 0.02


def test_a_request_interrupts_the_batch_that_runs() -> None:
    """The event loop has the same core: 11 ms of one image, and 1 ms of a request that comes meanwhile."""
    host = Host(CostTable([{1: 1e-2}]), 1, decode_s=0.0, request_s=1e-3)
    found = simulate(host, Rules([[1.0]]), np.array([0.0, 5e-3]))
    assert found.latency == pytest.approx([12e-3, 17e-3])
    assert found.cpu_s == pytest.approx(22e-3)


def test_half_a_core_takes_twice_as_long_and_the_same_cpu_time() -> None:
    whole = Host(CostTable([{1: 1e-2}]), 1, decode_s=1e-3, request_s=1e-3)
    arrivals = np.array([0.0, 5e-3])
    one, other = (
        simulate(replace(whole, core_share=share), Rules([[1.0]]), arrivals) for share in (1.0, 0.5)
    )
    assert other.latency[0] == pytest.approx(2 * one.latency[0])
    assert other.cpu_s == pytest.approx(one.cpu_s)


def test_stages_take_the_measured_factor_of_their_table() -> None:
    host = Host(CostTable([{1: 1e-2}]), 1, decode_s=0.0, request_s=0.0, stage_factor=1.3)
    assert simulate(host, Rules([[1.0]]), np.zeros(1)).latency == pytest.approx([13e-3])


def test_slow_files_are_decoded_in_small_batches() -> None:
    """Stage 1 would take four images at once, but the first is not to wait 60 ms for the others' files."""
    host = Host(CostTable([{1: 2e-3, 4: 2e-3}]), 1, decode_s=15e-3, request_s=0.0)
    found = simulate(host, Rules([[1.0]]), np.zeros(4))
    assert found.latency == pytest.approx([17e-3, 34e-3, 51e-3, 68e-3])


def test_refusals_take_time_from_the_worker() -> None:
    cheap, dear = (replace(HOST, refuse_s=seconds) for seconds in (0.0, 1e-3))
    arrivals = constant(3 * CAPACITY, 10)
    assert (
        simulate(dear, Rules(SHARES), arrivals).refused.mean()
        > simulate(cheap, Rules(SHARES), arrivals).refused.mean() + 0.05
    )
