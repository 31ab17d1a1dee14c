"""Features by value and by reference behave like one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.ray.features import Features, count, gather, is_array, join, take, whole


class Reference:
    """Stands for a reference to Ray's shared memory."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self.array = array


def resolved(features: Features) -> NDArray[np.float32]:
    array: NDArray[np.float32] = gather(
        features,
        [
            piece.source if is_array(piece.source) else piece.source.array  # type: ignore[attr-defined]
            for piece in features
        ],
    )
    return array


def blocks(sizes: Sequence[int], by_value: Sequence[bool]) -> tuple[Features, NDArray[np.float32]]:
    parts, arrays, start = [], [], 0
    for size, inline in zip(sizes, by_value, strict=True):
        array = np.arange(start, start + size, dtype=np.float32)[:, None, None]
        start += size
        arrays.append(array)
        parts.append(whole(array if inline else Reference(array), size))
    return join(parts), np.concatenate(arrays)


SHAPES = st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=5)


@given(SHAPES)
def test_joining_keeps_the_order(shapes: list[tuple[int, bool]]) -> None:
    features, array = blocks(*zip(*shapes, strict=True))
    assert count(features) == len(array)
    np.testing.assert_array_equal(resolved(features), array)


@given(SHAPES, st.data())
def test_taking_rows_equals_indexing_an_array(
    shapes: list[tuple[int, bool]], data: st.DataObject
) -> None:
    features, array = blocks(*zip(*shapes, strict=True))
    for _ in range(2):
        choice = st.lists(st.integers(0, len(array) - 1), min_size=1, max_size=8)
        rows = np.asarray(data.draw(choice), dtype=np.int64)
        features, array = take(features, rows), array[rows]
        assert count(features) == len(array)
        np.testing.assert_array_equal(resolved(features), array)


def test_taking_rows_of_a_reference_keeps_the_reference() -> None:
    reference = Reference(np.arange(4, dtype=np.float32))
    (piece,) = take(whole(reference, 4), np.asarray([3, 1]))
    assert piece.source is reference
    assert piece.count == 2


def test_a_whole_array_is_not_copied() -> None:
    array = np.zeros((3, 2), np.float32)
    assert resolved(whole(Reference(array), 3)) is array
