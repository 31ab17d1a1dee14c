"""Which version a request goes to: the share, and that a header's value stays with its version."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.canary.assignment import Assignment, position

SHARES = st.floats(0, 1)
VALUES = st.binary(max_size=40)


def scope(**headers: bytes) -> dict[str, Any]:
    found = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return {"headers": [(b"host", b"example.org"), *found]}


@given(VALUES, SHARES, SHARES)
def test_a_larger_share_only_moves_values_to_the_canary(
    value: bytes, one: float, other: float
) -> None:
    less, more = sorted((one, other))
    request = scope(x_user=value)
    before, after = (Assignment(share, b"x-user", b"salt").takes(request) for share in (less, more))
    assert after or not before


@given(VALUES, SHARES, st.integers(0))
def test_the_same_value_goes_to_the_same_version(value: bytes, share: float, seed: int) -> None:
    assignment, draws = Assignment(share, b"x-user"), random.Random(seed)
    found = {assignment.takes(scope(x_user=value), draws.random) for _ in range(3)}
    assert len(found) == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("sticky", [False, True])
def test_the_canary_takes_its_share(share: float, sticky: bool) -> None:
    count, draws = 20_000, random.Random(0)
    assignment = Assignment(share, b"x-user" if sticky else None)
    taken = sum(
        assignment.takes(scope(x_user=b"user-%d" % number), draws.random) for number in range(count)
    )
    # Four standard deviations.
    assert abs(taken - share * count) <= 4 * (count * share * (1 - share)) ** 0.5


def test_a_request_without_the_header_is_assigned_at_random() -> None:
    assignment = Assignment(0.5, b"x-user")
    assert assignment.takes(scope(), lambda: 0.49)
    assert not assignment.takes(scope(), lambda: 0.5)


def test_another_canary_chooses_other_values() -> None:
    values = [b"user-%d" % number for number in range(1000)]
    chosen = [{v for v in values if position(salt, v) < 0.5} for salt in (b"one", b"two")]
    assert 150 < len(chosen[0] & chosen[1]) < 350
