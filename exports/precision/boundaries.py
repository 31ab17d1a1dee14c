"""Where int8 stages begin and end: logits are not rounded, and features stay as they were quantised.

The quantiser gives every stage float32 edges. Behind the last layer that means rounding to eight bits what
is float32 before and after; between two stages, scaling the same eight bits up and down again.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from exports.bundle.manifest import FeatureType
from exports.bundle.reader import stage_input
from exports.graphs.onnx_tools import pruned, serialised

FEATURE_TYPES: dict[int, FeatureType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
}


def unrounded(model: ModelProto, output: str) -> ModelProto:
    """`model`, changed in place: its float32 `output` without the pair of nodes that rounds it last."""
    last = _maker(model, output)
    if last is None or last.op_type != "DequantizeLinear":
        return model
    first = _maker(model, last.input[0])
    if first is None or first.op_type != "QuantizeLinear":
        return model
    exact = _maker(model, first.input[0])
    if exact is None or len(_takers(model, first.input[0])) > 1:
        return model
    last.output[0] = f"{output}.rounded"
    exact.output[list(exact.output).index(first.input[0])] = output
    first.input[0] = output
    return pruned(model)


def connected(stages: Sequence[bytes]) -> tuple[bytes, ...]:
    """`stages` that hand on features as uint8 or int8 wherever one ends by scaling them to float32 and
    the next begins by quantising them with the same scale and zero point; the others as they are."""
    models = [onnx.load_from_string(stage) for stage in stages]
    changed = set()
    for k in range(1, len(models)):
        if _connect(models[k - 1], models[k], stage_input(k + 1)):
            changed |= {k - 1, k}
    return tuple(serialised(models[k]) if k in changed else stage for k, stage in enumerate(stages))


def feature_type(stage: bytes) -> FeatureType:
    """The type of the features that `stage`, which is not the last, hands on."""
    features = onnx.load_from_string(stage).graph.output[0]
    return FEATURE_TYPES[features.type.tensor_type.elem_type]


def _connect(before: ModelProto, after: ModelProto, name: str) -> bool:
    """Make the features `name` between two stages what they are inside both; whether that could be."""
    last, takers = _maker(before, name), _takers(after, name)
    if last is None or last.op_type != "DequantizeLinear" or not takers:
        return False
    code = _code(before, last)
    if code is None or any(
        taker.op_type != "QuantizeLinear" or _code(after, taker) != code for taker in takers
    ):
        return False
    quantised, scaled = last.input[0], f"{name}.scaled"
    for node in before.graph.node:
        _rename(node.input, {quantised: name, name: scaled})
        _rename(node.output, {quantised: name, name: scaled})
    outputs = {taker.output[0]: name for taker in takers}
    for taker in takers:
        after.graph.node.remove(taker)
    for node in after.graph.node:
        _rename(node.input, outputs)
    kind = next(t.data_type for t in before.graph.initializer if t.name == last.input[2])
    before.graph.output[0].type.tensor_type.elem_type = kind
    after.graph.input[0].type.tensor_type.elem_type = kind
    pruned(before)
    pruned(after)
    return True


def _maker(model: ModelProto, name: str) -> NodeProto | None:
    return next((node for node in model.graph.node if name in node.output), None)


def _takers(model: ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def _rename(names: MutableSequence[str], new: dict[str, str]) -> None:
    for i, name in enumerate(names):
        names[i] = new.get(name, name)


def _code(model: ModelProto, node: NodeProto) -> tuple[Any, ...] | None:
    """Scale, zero point and type of a QuantizeLinear or DequantizeLinear with one of each."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if len(node.input) < 3 or any(name not in constants for name in node.input[1:]):
        return None
    scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
    return (scale.item(), zero.item(), zero.dtype) if scale.size == 1 else None
