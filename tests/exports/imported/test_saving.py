"""What a bundle saves is stated as a share of what is compared with."""

from __future__ import annotations

import pytest

from exports.imported.saving import saved_share


@pytest.mark.parametrize(
    ("mean", "whole", "words"),
    [
        (60.0, 100.0, "which saves 40%"),
        (100.0, 100.0, "which saves 0%"),
        # 100 is 20 % less than 125, which is 25 % more than 100.
        (125.0, 100.0, "which is 20% less"),
    ],
)
def test_the_smaller_cost_is_stated_as_a_share_of_the_larger(
    mean: float, whole: float, words: str
) -> None:
    assert saved_share(mean, whole) == words
