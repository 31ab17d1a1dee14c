"""Joining the stages of a network into one ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx.compose
import onnx.version_converter
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.utils import Extractor

from exports.bundle.errors import ExportError
from exports.bundle.reader import IMAGE, features_of


def exit_graph(stages: Sequence[bytes], exit_: int) -> bytes:
    """image uint8 [N, H, W, 3] -> logits float32 [N, C] of exit `exit_`, without the other heads."""
    models = load_stages(stages)
    nodes: list[NodeProto] = []
    for k, model in enumerate(models[:exit_], 1):
        nodes += [connection(model, k), *model.graph.node]
    nodes.append(rename(prefixed(exit_, "logits"), "logits"))
    classes = models[exit_ - 1].graph.output[-1].type.tensor_type.shape.dim[1].dim_value
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
    joined = assemble(f"exit{exit_}", models[:exit_], nodes, [image_info(models)], [logits])
    return serialised(Extractor(joined).extract_model([IMAGE], ["logits"]))


def load_stages(stages: Sequence[bytes]) -> list[ModelProto]:
    """The stages as models in which every name starts with `stageK.`, so that one graph can hold them.

    Stages of older opsets are converted to the newest one among them. Raises ExportError if one cannot be.
    """
    models = [onnx.load_from_string(content) for content in stages]
    newest = max(opset(model) for model in models)
    return [
        onnx.compose.add_prefix(_converted(model, k, newest), prefixed(k, ""))
        for k, model in enumerate(models, 1)
    ]


def _converted(model: ModelProto, stage: int, version: int) -> ModelProto:
    """`model` in the opset `version`."""
    if opset(model) == version:
        return model
    try:
        return onnx.version_converter.convert_version(model, version)
    # What the converter's C++ raises.
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ExportError(
            f"stage {stage} has ONNX opset {opset(model)} and cannot be converted to {version}, which "
            "another stage has: they cannot be one graph."
        ) from error


def prefixed(stage: int, name: str) -> str:
    """The name in the joined graph of the tensor `name` of stage `stage`."""
    return f"stage{stage}.{name}"


def takes_image(model: ModelProto, stage: int) -> bool:
    """Whether stage `stage`, loaded by `load_stages`, takes the image and not features."""
    name: str = model.graph.input[0].name
    return name == prefixed(stage, IMAGE)


def connection(model: ModelProto, stage: int) -> NodeProto:
    """The node that gives stage `stage` of a joined graph its input: the image, or the features of the
    stage before."""
    source = IMAGE if takes_image(model, stage) else prefixed(stage - 1, features_of(stage - 1))
    return rename(source, model.graph.input[0].name)


def rename(old: str, new: str) -> NodeProto:
    """A node that gives tensor `old` the name `new`."""
    return helper.make_node("Identity", [old], [new], name=f"{new}_is")


def rename_output(model: ModelProto, old: str, new: str) -> None:
    """Rename the output `old` of `model`; changes it in place."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for output in graph.output:
        output.name = new if output.name == old else output.name


def rename_input(model: ModelProto, old: str, new: str) -> None:
    """Rename the input `old` of `model`; changes it in place."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    for value in graph.input:
        value.name = new if value.name == old else value.name


def image_info(models: Sequence[ModelProto]) -> onnx.ValueInfoProto:
    """The input `image`, of the size that stage 1 takes, with a dynamic batch."""
    dims = models[0].graph.input[0].type.tensor_type.shape.dim[1:]
    shape = ["batch", *(dim.dim_value for dim in dims)]
    return helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape)


def assemble(
    name: str,
    models: Sequence[ModelProto],
    nodes: Sequence[NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
) -> ModelProto:
    """One model of `nodes`, which are in topological order and include those of the stages `models`."""
    graph = helper.make_graph(
        list(nodes),
        name,
        list(inputs),
        list(outputs),
        [*initializers, *(tensor for model in models for tensor in model.graph.initializer)],
    )
    imports = {entry.domain: entry for model in models for entry in model.opset_import}
    assembled = helper.make_model(
        graph,
        opset_imports=[imports[domain] for domain in sorted(imports)],
        ir_version=max(model.ir_version for model in models),
    )
    assembled.producer_name = "offramp"
    onnx.checker.check_model(assembled)
    return assembled


def prune(model: ModelProto) -> ModelProto:
    """Remove the nodes and constants of `model` that no output needs; changes it in place."""
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    needed: set[str] = set()
    pending = [output.name for output in graph.output]
    while pending:
        name = pending.pop()
        if name not in needed and name in producers:
            pending += _inputs(producers[name])
        needed.add(name)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return model


def _inputs(node: NodeProto) -> Iterator[str]:
    """The inputs of `node`, including those of its branches and loops."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _inputs(inner)


def serialised(model: ModelProto) -> bytes:
    """The model as deterministic bytes, without the metadata that tools add (source paths, stack traces,
    shapes of inner values), which can be larger than a small network's weights."""
    _strip(model.graph)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(graph: GraphProto) -> None:
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def opset(model: ModelProto) -> int:
    """The version of the ONNX operator set that the model uses."""
    onnx_domains = ("", "ai.onnx")
    version: int = next(e.version for e in model.opset_import if e.domain in onnx_domains)
    return version
