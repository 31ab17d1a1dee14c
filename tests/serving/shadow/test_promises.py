"""What an exit promises, and the threshold that a raise chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.bundle.certificate import Certificate
from exports.bundle.policy import Policy, Scaling
from exports.bundle.reader import Table, load_bundle, load_table
from exports.tuning.search import NEVER
from exports.tuning.statistics.binomial import proportion_bound
from serving.shadow.promises import (
    ERROR,
    MIN_STEP,
    checked_exits,
    promises,
    supported_threshold,
)

SCALING = Scaling((1.0, 1.0), (1.0, 1.0), (0.01, 0.99))
POLICY = Policy(thresholds=(0.9,), max_exit=2)
CERTIFICATE = Certificate(
    method="exact-score",
    permitted_drop=2.0,
    confidence=0.95,
    bound=1.0,
    chosen_on=10,
    samples=10,
    split_sha256="0" * 64,
    target="labels",
)


def table(leave: int, differ: int, stay: int) -> Table:
    """Two classes; `leave` samples are sure at exit 1, of which `differ` are the other class at exit 2."""
    first = np.zeros((leave + stay, 2), np.float32)
    first[:leave, 0] = 10
    second = np.zeros((leave + stay, 2), np.float32)
    second[:, 0] = 10
    second[:differ] = (0, 10)
    return Table(np.stack([first, second]), np.zeros(leave + stay, np.int64))


def test_an_exit_promises_its_agreement_on_the_table_less_its_uncertainty_and_the_permitted_drop() -> (
    None
):
    (found,) = promises(POLICY, table(leave=200, differ=6, stay=50), SCALING)
    assert (found.exit_, found.samples, found.agreement) == (1, 200, 0.97)
    limit = proportion_bound(6, 200, 1 - ERROR / 2)
    assert found.promised == pytest.approx(1 - limit - 0.005)


def test_the_permitted_drop_is_that_of_the_certificate() -> None:
    certified = POLICY.model_copy(update={"certificate": CERTIFICATE})
    (found,) = promises(certified, table(200, 6, 50), SCALING)
    assert found.promised == pytest.approx(1 - proportion_bound(6, 200, 1 - ERROR / 2) - 0.02)


def test_an_exit_where_no_sample_left_promises_nothing() -> None:
    (found,) = promises(POLICY, table(leave=0, differ=0, stay=50), SCALING)
    assert (found.samples, found.agreement, found.promised) == (0, None, 0.0)


@pytest.mark.parametrize(
    ("policy", "exits"),
    [
        (Policy(thresholds=(0.5, 0.5, 0.5), max_exit=4), [1, 2, 3]),
        (Policy(thresholds=(0.5, NEVER, 0.5), max_exit=4), [1, 3]),
        (Policy(thresholds=(0.5, 0.5, 0.5), max_exit=2), [1]),
        (Policy(mode="ensemble", thresholds=(0.5, 0.5, 0.5), max_exit=4), []),
        (Policy(mode="exit", thresholds=(0.5, 0.5, 0.5), max_exit=2), []),
    ],
)
def test_exits_are_checked_whose_threshold_lets_samples_leave(
    policy: Policy, exits: list[int]
) -> None:
    assert checked_exits(policy) == exits


def test_the_raised_threshold_is_the_least_that_the_shadows_support() -> None:
    """Of 100 shadows the 20 of lowest confidence differ, and 1 of the others."""
    values = np.linspace(0.5, 0.995, 100)
    shadows = [(float(value), place >= 20 and place != 90) for place, value in enumerate(values)]
    found = supported_threshold(shadows, promised=0.95, present=0.5)
    # One that differs is added, and one more below would be too many: 3 / 64 and 3 / 59.
    kept = [agrees for value, agrees in shadows if value >= found]
    assert (kept.count(False) + 1) / (len(kept) + 1) <= 0.05
    more = [agrees for value, agrees in shadows if value >= found - 0.0051]
    assert (more.count(False) + 1) / (len(more) + 1) > 0.05 or len(more) > 0.9 * len(shadows)


def test_an_exit_is_closed_if_no_threshold_is_supported() -> None:
    assert supported_threshold([(0.9, False)] * 50, 0.9, 0.5) == NEVER
    assert supported_threshold([(0.9 + i / 1000, True) for i in range(20)], 0.99, 0.5) == NEVER
    assert supported_threshold([], 0.9, 0.5) == NEVER


shadows = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=80)


@given(shadows, st.floats(0, 1), st.floats(0, 1))
def test_a_raise_never_lowers_and_lets_fewer_leave(
    found: list[tuple[float, bool]], promised: float, present: float
) -> None:
    after = supported_threshold(found, promised, present)
    assert after > present
    kept = [agrees for value, agrees in found if value >= after]
    assert len(kept) <= (1 - MIN_STEP) * len(found)


def test_the_tiny_bundle_has_promises(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    found = promises(
        bundle.policy, load_table(bundle_path, bundle.manifest), bundle.manifest.scaling
    )
    assert [one.exit_ for one in found] == [1, 2]
    assert all(0 <= one.promised <= 1 for one in found)
