"""The inputs and outputs of int8 stages: logits are not rounded, and features stay quantised.

The quantiser gives every stage float32 inputs and outputs. After the last layer it therefore rounds
float32 logits to eight bits and back. Between two stages it dequantises features that the next stage
quantises again with the same scale. This module removes both.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from exports.bundle.manifest import FeatureType
from exports.bundle.reader import features_of
from exports.graphs.onnx_tools import prune, serialised

FEATURE_TYPES: dict[int, FeatureType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
}


def remove_final_rounding(model: ModelProto, output: str) -> ModelProto:
    """Remove the QuantizeLinear and DequantizeLinear nodes that end in the float32 `output` of `model`;
    changes it in place."""
    dequantize = _producer(model, output)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return model
    quantize = _producer(model, dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return model
    last_layer = _producer(model, quantize.input[0])
    if last_layer is None or len(_consumers(model, quantize.input[0])) > 1:
        return model
    dequantize.output[0] = f"{output}.rounded"
    last_layer.output[list(last_layer.output).index(quantize.input[0])] = output
    quantize.input[0] = output
    return prune(model)


def connect_stages(stages: Sequence[bytes]) -> tuple[bytes, ...]:
    """`stages` with uint8 or int8 features between them, wherever one stage ends by dequantising them
    and the next begins by quantising them with the same scale and zero point. Other stages are
    returned as they are, so there is nothing to connect before a stage that takes the image."""
    models = [onnx.load_from_string(stage) for stage in stages]
    changed = set()
    for k in range(1, len(models)):
        if _connect(models[k - 1], models[k], features_of(k)):
            changed |= {k - 1, k}
    return tuple(serialised(models[k]) if k in changed else stage for k, stage in enumerate(stages))


def feature_type(stage: bytes) -> FeatureType:
    """The type of the output features of `stage`, which must have some."""
    features = onnx.load_from_string(stage).graph.output[0]
    return FEATURE_TYPES[features.type.tensor_type.elem_type]


def _connect(before: ModelProto, after: ModelProto, name: str) -> bool:
    """Keep the features `name` between two stages quantised; returns whether that was possible."""
    dequantize, consumers = _producer(before, name), _consumers(after, name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or not consumers:
        return False
    encoding = _encoding(before, dequantize)
    if encoding is None or any(
        node.op_type != "QuantizeLinear" or _encoding(after, node) != encoding for node in consumers
    ):
        return False
    quantised, scaled = dequantize.input[0], f"{name}.scaled"
    for node in before.graph.node:
        _rename(node.input, {quantised: name, name: scaled})
        _rename(node.output, {quantised: name, name: scaled})
    outputs = {node.output[0]: name for node in consumers}
    for node in consumers:
        after.graph.node.remove(node)
    for node in after.graph.node:
        _rename(node.input, outputs)
    kind = next(t.data_type for t in before.graph.initializer if t.name == dequantize.input[2])
    before.graph.output[0].type.tensor_type.elem_type = kind
    after.graph.input[0].type.tensor_type.elem_type = kind
    prune(before)
    prune(after)
    return True


def _producer(model: ModelProto, name: str) -> NodeProto | None:
    return next((node for node in model.graph.node if name in node.output), None)


def _consumers(model: ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def _rename(names: MutableSequence[str], new: dict[str, str]) -> None:
    for i, name in enumerate(names):
        names[i] = new.get(name, name)


def _encoding(model: ModelProto, node: NodeProto) -> tuple[Any, ...] | None:
    """Scale, zero point and type of a QuantizeLinear or DequantizeLinear node, None if they are not
    constants or differ by channel."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if len(node.input) < 3 or any(name not in constants for name in node.input[1:]):
        return None
    scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
    return (scale.item(), zero.item(), zero.dtype) if scale.size == 1 else None
