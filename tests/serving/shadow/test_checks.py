"""The guard in simulation: it stays quiet while promises hold, and mends an exit that breaks its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scheduling.options import ShadowResult
from serving.shadow.checks import ExitCheck, PolicyCheck, Raise
from serving.shadow.promises import Promise

THRESHOLDS = (0.8, 0.7)
PROMISES = (Promise(1, 1600, 0.983, 0.967), Promise(2, 800, 0.99, 0.97))


def policy_check() -> PolicyCheck:
    return PolicyCheck(PROMISES, THRESHOLDS)


def exit_1(check: PolicyCheck) -> ExitCheck:
    return check.exits[1]


def feed(
    check: PolicyCheck, agreement: float, shadows: int, rng: np.random.Generator
) -> list[Raise]:
    """Shadows of exit 1, whose agreement rises with the measure and is `agreement` on average of those that
    leave at 0.8; looks every ten. The raises that were applied."""
    done = []
    for count in range(1, shadows + 1):
        measured = 0.8 + 0.2 * rng.random()
        if measured < exit_1(check).threshold:
            continue
        # The mean of (1 - x)^3 is 1/4.
        differs = 4 * (1 - agreement) * ((1 - measured) / 0.2) ** 3
        check.add(ShadowResult(1, measured, bool(rng.random() >= differs)))
        if count % 10 == 0:
            raises = check.needed_raises()
            check.apply(raises)
            done += raises
    return done


def test_as_calibrated_nothing_is_raised_in_long_runs() -> None:
    """The agreement is the least that is promised. Less than one run in a hundred may have a raise."""
    rng = np.random.default_rng(0)
    raised = sum(bool(feed(policy_check(), 0.967, 1_500, rng)) for _ in range(40))
    assert raised <= 2


def test_a_broken_exit_is_raised_within_600_shadows_and_then_keeps_its_promise() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        check = policy_check()
        feed(check, 0.983, 200, rng)
        (first, *_) = feed(check, 0.867, 600, rng)
        assert (first.exit_, first.before, first.promised) == (1, 0.8, 0.967)
        assert first.span.high < 0.967
        feed(check, 0.867, 4_000, rng)
        threshold = exit_1(check).threshold
        # (1 - x)^3 above the threshold has the mean (1 - t)^3 / 4.
        differs = 4 * (1 - 0.867) * ((1 - threshold) / 0.2) ** 3 / 4 if threshold < 1 else 0.0
        assert differs < 0.05
        assert check.exits[2].threshold == THRESHOLDS[1]


def test_an_exit_that_never_agrees_is_closed() -> None:
    check = policy_check()
    for _ in range(100):
        check.add(ShadowResult(1, 0.99, False))
    (found,) = check.needed_raises()
    assert found.closed
    check.apply([found])
    assert check.needed_raises() == []
    assert exit_1(check).threshold > 1


def test_shadows_before_a_raise_say_nothing_of_what_leaves_after_it() -> None:
    check = policy_check()
    for _ in range(100):
        check.add(ShadowResult(1, 0.81, False))
    check.apply(check.needed_raises())
    assert exit_1(check).sequences.lowest() is None
    assert exit_1(check).shadows == 100


def test_exits_that_are_not_checked_are_ignored() -> None:
    check = policy_check()
    check.add(ShadowResult(3, 0.5, False))
    assert check.needed_raises() == []


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.floats(0, 1), st.booleans()), min_size=60, max_size=250
    )
)
def test_thresholds_never_go_down(found: list[tuple[int, float, bool]]) -> None:
    check = policy_check()
    for exit_, measured, agrees in found:
        check.add(ShadowResult(exit_, measured, agrees and measured > 0.95))
        before = [one.threshold for one in check.exits.values()]
        check.apply(check.needed_raises())
        after = [one.threshold for one in check.exits.values()]
        assert all(now >= then for now, then in zip(after, before, strict=True))


@pytest.mark.parametrize("agrees", [True, False])
def test_an_exit_that_promises_nothing_is_never_raised(agrees: bool) -> None:
    check = PolicyCheck([Promise(1, 0, None, 0.0)], (0.8,))
    for _ in range(200):
        check.add(ShadowResult(1, 0.9, agrees))
    assert check.needed_raises() == []
