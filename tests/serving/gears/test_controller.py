"""The controller as a function: what it never does, whatever it observes, and what it does in plain cases."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gears.controller import (
    DOWN_S,
    HOLD_S,
    INTERVAL_S,
    MAX_HOLD_S,
    UP_S,
    Observation,
    State,
    step,
)

TARGET_S = 0.1
COSTS = (4e-3, 3e-3, 2e-3, 1e-3)

observations = st.builds(
    Observation,
    now=st.just(0.0),
    arrivals=st.integers(0, 10_000).map(float),
    finished=st.integers(0, 10_000).map(float),
    work_s=st.floats(0, 10),
    workers=st.floats(0, 8),
    wait_s=st.floats(0, 10),
    p99_s=st.none() | st.floats(0, 10),
    slowdown=st.floats(0.5, 20),
)
pauses = st.floats(0.01, 30)
runs = st.lists(st.tuples(pauses, observations), min_size=1, max_size=60)
costs = st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=8).map(
    lambda found: tuple(sorted(found, reverse=True))
)


def follow(
    run: list[tuple[float, Observation]], gears: tuple[float, ...]
) -> list[tuple[State, Observation]]:
    """The states after every observation of `run`, from the start on."""
    now, found = 0.0, [(State(at=0.0), run[0][1])]
    for pause, seen in run:
        now += pause
        seen = replace(seen, now=now)
        found.append((step(found[-1][0], seen, gears, TARGET_S), seen))
    return found


@given(runs, costs)
@settings(max_examples=80, deadline=None)
def test_the_gear_is_always_one_of_those_given(
    run: list[tuple[float, Observation]], gears: tuple[float, ...]
) -> None:
    """Only gears that keep the floor are given, so none below it is used."""
    for state, _ in follow(run, gears):
        assert 0 <= state.gear < len(gears)


@given(runs)
@settings(max_examples=80, deadline=None)
def test_shifts_are_apart_and_go_up_by_one_gear(run: list[tuple[float, Observation]]) -> None:
    last = float("-inf")
    for (before, _), (after, seen) in pairwise(follow(run, COSTS)):
        if after.gear == before.gear:
            continue
        assert seen.now - last >= (DOWN_S if after.gear > before.gear else UP_S)
        assert after.gear >= before.gear - 1
        last = seen.now


@given(runs)
@settings(max_examples=80, deadline=None)
def test_a_shift_up_needs_calm_for_as_long_as_the_hold(
    run: list[tuple[float, Observation]],
) -> None:
    pressed = float("-inf")
    for (before, _), (after, seen) in pairwise(follow(run, COSTS)):
        assert HOLD_S <= after.hold_s <= MAX_HOLD_S
        if seen.wait_s > TARGET_S:
            pressed = seen.now
            assert after.gear >= before.gear
        if after.gear < before.gear:
            assert seen.now - pressed >= before.hold_s


@given(runs)
@settings(max_examples=50, deadline=None)
def test_nothing_is_shifted_down_while_nothing_waits_and_answers_are_in_time(
    run: list[tuple[float, Observation]],
) -> None:
    calm = [(pause, replace(seen, wait_s=0.0, p99_s=TARGET_S / 2)) for pause, seen in run]
    assert {state.gear for state, _ in follow(calm, COSTS)} == {0}


@given(runs)
@settings(max_examples=50, deadline=None)
def test_the_same_observations_give_the_same_states(run: list[tuple[float, Observation]]) -> None:
    assert follow(run, COSTS) == follow(run, COSTS)


def busy(
    now: float, wait_s: float, *, arrivals: float = 20, p99_s: float | None = None
) -> Observation:
    """An interval in gear 0 with all of one worker busy."""
    return Observation(now, arrivals, 25, INTERVAL_S, 1.0, wait_s, p99_s)


def test_a_wait_beyond_the_target_shifts_as_far_as_the_arrivals_need() -> None:
    """A thousand a second with one millisecond each need the last gear, three hundred the second."""
    flood = step(State(at=0.0), busy(0.1, 0.2, arrivals=100), COSTS, TARGET_S)
    assert (flood.gear, flood.reason) == (3, "wait")
    few = step(State(at=0.0, fast=250, work=0.1, done=25), busy(0.1, 0.2), COSTS, TARGET_S)
    assert few.gear == 1


def test_most_of_the_target_shifts_by_one_gear_if_it_lasts_and_the_workers_are_short() -> None:
    state = State(at=0.0, fast=300, work=0.1, done=25)
    once = step(state, busy(0.1, 0.08, arrivals=30), COSTS, TARGET_S)
    assert once.gear == 0
    assert step(once, busy(0.2, 0.08, arrivals=30), COSTS, TARGET_S).gear == 1
    idle = replace(once, fast=100)
    assert step(idle, busy(0.2, 0.08, arrivals=10), COSTS, TARGET_S).gear == 0


def test_a_p99_beyond_the_target_of_busy_workers_shifts_by_one_gear() -> None:
    state = State(at=0.0, slow=200, work=0.1, done=25)
    found = step(state, busy(0.1, 0.0, p99_s=0.11), COSTS, TARGET_S)
    assert (found.gear, found.reason) == (1, "p99")
    idle = step(replace(state, slow=20), busy(0.1, 0.0, p99_s=0.11), COSTS, TARGET_S)
    assert idle.gear == 0


def test_pressure_soon_after_a_shift_up_doubles_the_hold() -> None:
    state = State(at=9.9, gear=1, lowered_at=0.0, raised_at=9.0)
    assert step(state, busy(10.0, 0.2), COSTS, TARGET_S).hold_s == 2 * HOLD_S
    later = replace(state, at=999.9, hold_s=80.0)
    assert step(later, busy(1000.0, 0.2), COSTS, TARGET_S).hold_s == HOLD_S


def test_a_gear_that_the_arrivals_do_not_fit_into_is_not_tried() -> None:
    state = State(at=99.9, gear=1, fast=300, slow=300, work=0.3, done=100)
    seen = Observation(100.0, 30, 30, 0.09, 1.0, 0.0)
    assert step(state, seen, COSTS, TARGET_S).gear == 1
    assert (
        step(replace(state, fast=150, slow=150), replace(seen, arrivals=15), COSTS, TARGET_S).gear
        == 0
    )
