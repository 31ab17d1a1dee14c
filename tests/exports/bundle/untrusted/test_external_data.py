"""External data is found in every tensor of an ONNX file, and no input breaks the search."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exports.bundle.untrusted.external_data import (
    DATA_LOCATION,
    EXTERNAL_DATA,
    TENSOR_FIELDS,
    MalformedGraphError,
    has_external_data,
)
from tests.serving.tiny_bundle import stage_bytes


def test_the_field_numbers_are_those_of_onnx() -> None:
    """From the message descriptors of the installed onnx: which fields lead to a TensorProto."""
    messages = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name
    holds = {"TensorProto"}
    while True:
        more = {
            name
            for name, message in messages.items()
            if any(f.message_type and f.message_type.name in holds for f in message.fields)
        }
        if more <= holds:
            break
        holds |= more
    fields = {
        name: {
            field.number: field.message_type.name
            for field in messages[name].fields
            if field.message_type and field.message_type.name in holds
        }
        for name in holds
    }
    assert fields == TENSOR_FIELDS
    tensor = messages["TensorProto"].fields_by_name
    assert tensor["external_data"].number == EXTERNAL_DATA
    assert tensor["data_location"].number == DATA_LOCATION


def external_tensor() -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    return tensor


def in_a_graph(*nodes: onnx.NodeProto, initializers: list[TensorProto] | None = None):  # type: ignore[no-untyped-def]
    return helper.make_graph(list(nodes), "g", [], [], initializers or [])


def models() -> dict[str, onnx.ModelProto]:
    constant = helper.make_node("Constant", [], ["c"], value=external_tensor())
    branch = helper.make_node("If", ["x"], ["y"], then_branch=in_a_graph(constant))
    sparse = onnx.SparseTensorProto(values=external_tensor())
    function = helper.make_function("d", "f", [], ["c"], [constant], [])
    graph = in_a_graph()
    graph.sparse_initializer.append(sparse)
    only_named = external_tensor()
    only_named.ClearField("data_location")
    only_flagged = external_tensor()
    only_flagged.ClearField("external_data")
    return {
        "initializer": helper.make_model(in_a_graph(initializers=[external_tensor()])),
        "constant": helper.make_model(in_a_graph(constant)),
        "branch": helper.make_model(in_a_graph(branch)),
        "sparse": helper.make_model(graph),
        "function": helper.make_model(in_a_graph(), functions=[function]),
        "named only": helper.make_model(in_a_graph(initializers=[only_named])),
        "flagged only": helper.make_model(in_a_graph(initializers=[only_flagged])),
    }


@pytest.mark.parametrize("place", models())
def test_external_data_is_found_in_every_place(place: str) -> None:
    assert has_external_data(models()[place].SerializeToString())


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_graph_with_its_weights_has_no_external_data(stage: int) -> None:
    assert not has_external_data(stage_bytes(stage))


def test_weights_that_look_like_a_reference_are_not_one() -> None:
    content = external_tensor().SerializeToString()
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[len(content)])
    tensor.raw_data = content
    assert not has_external_data(
        helper.make_model(in_a_graph(initializers=[tensor])).SerializeToString()
    )


@given(st.binary(max_size=200))
def test_random_bytes_are_classified_or_malformed(content: bytes) -> None:
    with contextlib.suppress(MalformedGraphError):
        has_external_data(content)


@given(st.data())
def test_a_changed_byte_cannot_hide_a_reference(data: st.DataObject) -> None:
    """If protobuf still reads a reference after the change, the search finds it."""
    content = bytearray(models()["branch"].SerializeToString())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        model = onnx.load_from_string(bytes(content))
    except Exception:  # noqa: BLE001 - protobuf's errors; onnxruntime cannot read such a file either
        return
    tensors = [
        attribute.t
        for node in model.graph.node
        for branch in node.attribute
        for inner in branch.g.node
        for attribute in inner.attribute
    ]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        with contextlib.suppress(MalformedGraphError):
            assert has_external_data(bytes(content))


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    content = b""
    for _ in range(3000):
        attribute = b"\x32" + _size(content) + content
        node = b"\x2a" + _size(attribute) + attribute
        content = b"\x0a" + _size(node) + node
    assert not has_external_data(b"\x3a" + _size(content) + content)


def test_too_many_fields_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exports.bundle.untrusted.external_data.MAX_FIELDS", 10)
    with pytest.raises(MalformedGraphError, match="more than 10 fields"):
        has_external_data(stage_bytes(1))


def _size(content: bytes) -> bytes:
    value, out = len(content), bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
