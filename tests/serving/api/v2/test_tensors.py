from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from serving.api.v2.tensors import (
    join_bytes,
    pixels_of_binary,
    pixels_of_json,
    split_bytes,
    to_binary,
    to_json,
)
from serving.errors import InvalidRequestError

pixels = arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=4))


@given(st.lists(st.binary(max_size=50)))
def test_bytes_round_trip_through_binary(elements: list[bytes]) -> None:
    assert split_bytes(join_bytes(elements), len(elements)) == elements


@given(st.lists(st.binary(max_size=20), max_size=4), st.data())
def test_bytes_cut_anywhere_or_counted_wrong_are_refused(
    elements: list[bytes], data: st.DataObject
) -> None:
    content = join_bytes(elements)
    wrong = data.draw(st.integers(0, 8).filter(lambda count: count != len(elements)))
    with pytest.raises(InvalidRequestError):
        split_bytes(content, wrong)
    with pytest.raises(InvalidRequestError):
        split_bytes(content + b"\0", len(elements))
    if content:
        with pytest.raises(InvalidRequestError):
            split_bytes(content[: data.draw(st.integers(0, len(content) - 1))], len(elements))


def test_a_length_beyond_the_body_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        split_bytes(b"\xff\xff\xff\xffabc", 1)


@given(pixels)
def test_pixels_round_trip_through_binary_and_json(wanted: NDArray[np.uint8]) -> None:
    shape = wanted.shape
    flat, nested = wanted.ravel().tolist(), wanted.tolist()
    for found in (
        pixels_of_binary(wanted.tobytes(), shape),
        pixels_of_json(flat, shape),
        pixels_of_json(nested, shape),
    ):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)


@given(pixels, st.integers(-1, 1).filter(bool))
def test_pixels_of_another_size_are_refused(wanted: NDArray[np.uint8], more: int) -> None:
    content = wanted.tobytes() + b"\0" if more > 0 else wanted.tobytes()[:-1]
    with pytest.raises(InvalidRequestError):
        pixels_of_binary(content, wanted.shape)
    with pytest.raises(InvalidRequestError):
        pixels_of_json(list(content), wanted.shape)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        "1234",
        [],
        [1, 2, 3],
        [[1, 2], [3]],
        [[1, 2], 3],
        [[1, 2], [3, [4]]],
        [[1, 2], ["3", 4]],
        [[1, 2], [3, 4], [5, 6]],
        [[1, 2, 3, 4]],
        [1, 2, 3, 256],
        [1, 2, 3, -1],
        [1, 2, 3, 4.0],
        [1, 2, 3, True],
        [1, 2, 3, None],
        [1, 2, 3, 10**30],
        ["1", "2", "3", "4"],
        [[], [], [], []],
        [1, [2], 3, 4],
    ],
)
def test_data_that_do_not_fit_a_shape_of_2_by_2_are_refused(data: Any) -> None:
    with pytest.raises(InvalidRequestError):
        pixels_of_json(data, [2, 2])


@given(arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)))
def test_answers_are_exact_in_both_forms(wanted: NDArray[np.float32]) -> None:
    binary = np.frombuffer(to_binary(wanted, "FP32"), "<f4").reshape(2, 3)
    np.testing.assert_array_equal(binary, wanted)
    text = orjson.dumps(to_json(wanted), option=orjson.OPT_SERIALIZE_NUMPY)
    np.testing.assert_array_equal(np.float32(orjson.loads(text)).reshape(2, 3), wanted)


def test_a_big_endian_array_is_sent_little_endian() -> None:
    assert to_binary(np.array([1], dtype=">i4"), "INT32") == b"\1\0\0\0"


def test_labels_are_utf8_in_both_forms() -> None:
    labels = ["Straße".encode(), b"ant"]
    assert split_bytes(to_binary(labels, "BYTES"), 2) == labels
    assert to_json(labels) == ["Straße", "ant"]
