from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from offramp.lru import LruDict

KEYS = st.integers(0, 5)


def filled(capacity: int, keys: str) -> LruDict[str, int]:
    entries: LruDict[str, int] = LruDict(capacity)
    for number, key in enumerate(keys):
        entries.put(key, number)
    return entries


def test_a_missing_key_has_no_value() -> None:
    assert filled(2, "a").get("b") is None


def test_the_least_recently_put_entry_is_dropped() -> None:
    entries = filled(2, "abc")
    assert ("a" in entries, "b" in entries, "c" in entries) == (False, True, True)
    assert len(entries) == 2


def test_getting_an_entry_keeps_it() -> None:
    entries = filled(2, "ab")
    assert entries.get("a") == 0
    entries.put("c", 2)
    assert ("a" in entries, "b" in entries) == (True, False)


def test_putting_a_key_again_replaces_its_value_and_keeps_it() -> None:
    entries = filled(2, "aba")
    entries.put("c", 3)
    assert (entries.get("a"), "b" in entries) == (2, False)


def test_asking_whether_a_key_is_there_does_not_keep_it() -> None:
    entries = filled(2, "ab")
    assert "a" in entries
    entries.put("c", 2)
    assert "a" not in entries


def test_a_new_capacity_applies_to_the_next_put() -> None:
    entries = filled(3, "abc")
    entries.capacity = 1
    assert len(entries) == 3
    entries.put("d", 3)
    assert (len(entries), entries.get("d")) == (1, 3)


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), KEYS)))
def test_it_holds_the_most_recently_used_keys(
    capacity: int, operations: list[tuple[bool, int]]
) -> None:
    entries: LruDict[int, int] = LruDict(capacity)
    expected: OrderedDict[int, int] = OrderedDict()
    for number, (is_put, key) in enumerate(operations):
        if is_put:
            entries.put(key, number)
            expected[key] = number
            expected.move_to_end(key)
            expected = OrderedDict(list(expected.items())[-capacity:])
        else:
            assert entries.get(key) == expected.get(key)
            if key in expected:
                expected.move_to_end(key)
    assert {key for key in range(6) if key in entries} == set(expected)
