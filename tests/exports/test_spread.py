"""Indices that are spread over a sequence."""

from __future__ import annotations

import pytest

from exports.spread import evenly_spread


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(9, 3, [0, 4, 8]), (3, 9, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (5, 1, [0])],
)
def test_the_first_and_the_last_are_kept_and_none_comes_twice(
    count: int, most: int, kept: list[int]
) -> None:
    assert evenly_spread(count, most).tolist() == kept
