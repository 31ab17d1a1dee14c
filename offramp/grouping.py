"""Dividing items into groups that are bounded in number and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def group(
    items: Iterable[Item], size: Callable[[Item], int], most: int, most_bytes: int
) -> Iterator[list[Item]]:
    """`items`, of `size` bytes each, in groups of `most`, or as many as have `most_bytes`; at least one.

    `items` are read as the groups are.
    """
    members: list[Item] = []
    total = 0
    for item in items:
        length = size(item)
        if members and (len(members) == most or total + length > most_bytes):
            yield members
            members, total = [], 0
        members.append(item)
        total += length
    if members:
        yield members
