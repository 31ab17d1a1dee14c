from __future__ import annotations

import gc
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.json_body import MAX_VALUES, file_of_base64, parse_json
from serving.errors import InvalidRequestError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_json_round_trips(value: object) -> None:
    assert parse_json(orjson.dumps(value)) == value


def seconds_to_parse(body: bytes, length: int) -> float:
    """CPU time of this thread, without garbage collections of other tests' objects."""
    gc.disable()
    started = time.thread_time()
    assert len(parse_json(body)) == length
    took = time.thread_time() - started
    gc.enable()
    return took


@pytest.mark.parametrize("unit", [b"0,", b"[],", b"{},", b'"a",'])
def test_what_is_allowed_is_parsed_soon_and_what_is_not_is_refused(unit: bytes) -> None:
    starts = sum(unit.count(start) for start in (b",", b"[", b"{", b":"))
    count = MAX_VALUES // starts - 2
    allowed = b"[" + unit * count + b"0]"
    assert min(seconds_to_parse(allowed, count + 1) for _ in range(3)) < 1
    with pytest.raises(InvalidRequestError, match="more than"):
        parse_json(b"[" + unit * (count + 2) + b"0]")


def test_an_image_in_nested_lists_fits() -> None:
    assert parse_json(orjson.dumps([[[[0, 0, 0]] * 224] * 224]))


@pytest.mark.parametrize("wrong", [None, 1, ["aGk="], "?", "aGk", "aGk=\n", "é", "a=b="])
def test_what_is_not_base64_is_refused_by_its_number(wrong: object) -> None:
    with pytest.raises(InvalidRequestError, match="Image 3"):
        file_of_base64(3, wrong)
