from __future__ import annotations

from offramp.grouping import group


def test_groups_are_bounded_in_number_and_bytes() -> None:
    sizes = [4, 4, 4, 40, 1, 1, 1, 1]
    found = group(sizes, lambda size: size, 3, 10)
    assert list(found) == [[4, 4], [4], [40], [1, 1, 1], [1]]
    assert list(group([], lambda size: size, 3, 10)) == []


def test_items_are_read_as_the_groups_are() -> None:
    items = iter(range(9))
    assert next(group(items, lambda _: 1, 2, 10)) == [0, 1]
    # The first of the next group ended this one.
    assert next(items) == 3
