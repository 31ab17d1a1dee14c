"""A classifier's ONNX file, read, checked and brought into the form that a stage can be made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
)
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.shape_inference import infer_shapes

from exports.bundle.errors import ExportError
from exports.bundle.reader import sha256
from exports.bundle.untrusted.external_data import has_external_data
from exports.bundle.untrusted.protobuf import MalformedGraphError
from exports.bundle.untrusted.safe_files import MAX_FILE_BYTES, one_line
from exports.graphs.onnx_tools import opset
from exports.options import Layout

# Of the nodes that preprocessing adds, in the form that they have here.
MIN_OPSET = 13
COLOURS = 3
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Network:
    """A classifier: its file, the SHA-256 of that, the graph with a free batch, and its input and output.

    `shape` is (N, …) of the input as in the file; None is free. `half` is whether the input is float16.
    """

    path: Path
    sha256: str
    model: ModelProto
    input: str
    output: str
    shape: tuple[int | None, ...]
    half: bool

    @property
    def batch(self) -> int | None:
        """The batch that the file is made for, None for any."""
        return self.shape[0]

    def layout(self, given: Layout | None) -> Layout:
        """`given`, or the position of the three colours in the input's shape."""
        axes: dict[Layout, int | None] = {"nchw": self.shape[1], "nhwc": self.shape[3]}
        possible = [layout for layout, size in axes.items() if size in (COLOURS, None)]
        certain = [layout for layout, size in axes.items() if size == COLOURS]
        if given is not None and given not in possible:
            raise ExportError(f"{self.path} takes {self._form}, which is not {given.upper()}.")
        if not possible:
            raise ExportError(
                f"{self.path} takes {self._form}, which is no image of three colours."
            )
        if given is not None:
            return given
        if len(certain) != 1 and len(possible) > 1:
            raise ExportError(f"{self.path} takes {self._form}: give --layout nchw or nhwc.")
        return (certain or possible)[0]

    def side(self, layout: Layout, given: int | None) -> int:
        """The side of the input: that of the graph, else `given`."""
        height, width = self.shape[2:] if layout == "nchw" else self.shape[1:3]
        fixed = {side for side in (height, width) if side is not None}
        if len(fixed) > 1:
            raise ExportError(f"{self.path} takes {self._form}; only square inputs are supported.")
        if fixed and given is not None and {given} != fixed:
            raise ExportError(f"{self.path} takes {self._form}, not a side of {given} pixels.")
        side = next(iter(fixed), given)
        if side is None:
            raise ExportError(f"{self.path} takes images of any size: give --size.")
        return side

    @property
    def _form(self) -> str:
        sides = ", ".join("free" if side is None else str(side) for side in self.shape)
        return f"an input of shape [{sides}]"


def read_network(path: Path) -> Network:
    """Read the ONNX file `path`. Weights in other files are taken into the graph.

    Raises ExportError if it cannot be read, is too large, or is not a classifier with one image as its input
    and one output.
    """
    content = _read(path)
    model = _modern(_parse(path, content), path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ExportError(f"{path} has {len(inputs)} inputs; a classifier takes one image.")
    if len(graph.output) != 1:
        names = ", ".join(one_line(value.name) for value in graph.output)
        raise ExportError(
            f"{path} has {len(graph.output)} outputs ({names}); a classifier returns one value for each "
            "class: export it with that output alone."
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in FLOATS or len(tensor.shape.dim) != 4:
        known = {number: name.lower() for name, number in TensorProto.DataType.items()}
        kind = known.get(tensor.elem_type, f"the unknown type {tensor.elem_type}")
        raise ExportError(
            f"{path} takes {kind} of {len(tensor.shape.dim)} axes; only float and float16 of four axes are "
            "supported."
        )
    # Some exporters write -1 for an axis that is free.
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    if shape[0] is not None:
        _free_reshapes(model, shape[0])
    del graph.input[:]
    graph.input.append(inputs[0])
    tensor.shape.dim[0].dim_param = "batch"
    half = tensor.elem_type == TensorProto.FLOAT16
    return Network(path, sha256(content), model, inputs[0].name, graph.output[0].name, shape, half)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ExportError(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are allowed.")
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}.") from error


def _parse(path: Path, content: bytes) -> ModelProto:
    """The model in `content`, with weights that are in files beside `path` taken into it."""
    try:
        if not has_external_data(content):
            return onnx.load_from_string(content)
        model = onnx.load(path)
        size = model.ByteSize()
    except (MalformedGraphError, DecodeError) as error:
        raise ExportError(f"{path} is not an ONNX file: {one_line(str(error))}.") from error
    except (onnx.checker.ValidationError, OSError, EncodeError, ValueError) as error:
        raise ExportError(f"the weights of {path} cannot be read: {_reason(error)}.") from error
    if size > MAX_FILE_BYTES:
        raise ExportError(
            f"{path} with its weights has {size} bytes; at most {MAX_FILE_BYTES} are allowed."
        )
    return model


def _free_reshapes(model: ModelProto, batch: int) -> None:
    """Let every Reshape of a `batch` to a constant shape that begins with it take any batch; changes `model`.

    Such shapes are what exporters make of `x.view(n, -1)` for one batch. That the results are right is for
    the comparison of the stage with its file to find out.
    """
    graph = model.graph
    inferred = infer_shapes(model).graph
    batched = {
        value.name
        for value in (*inferred.input, *inferred.value_info)
        if value.type.tensor_type.shape.dim
        and value.type.tensor_type.shape.dim[0].dim_value == batch
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values = {attribute.name: attribute.t for attribute in node.attribute}
            constants[node.output[0]] = values.get("value", TensorProto())
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[0] not in batched:
            continue
        if node.input[1] not in constants or not constants[node.input[1]].dims:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if len(shape) < 2 or shape[0] != batch or 0 in shape:
            continue
        del node.attribute[:]  # `allowzero`, which has no effect without a zero
        shape[0] = 0  # keeps the input's
        name = f"{node.output[0]}.free_shape"
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name


def _modern(model: ModelProto, path: Path) -> ModelProto:
    """`model` without local functions, in an opset that preprocessing can be written in."""
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        raise ExportError(f"{path} is not an ONNX file: it names no opset.")
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except onnx.checker.ValidationError as error:
            raise ExportError(
                f"{path} has functions of its own that cannot be inlined: {_reason(error)}."
            ) from error
    if opset(model) >= MIN_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, MIN_OPSET)
    # What the converter's C++ raises.
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ExportError(
            f"{path} has opset {opset(model)} and cannot be converted to {MIN_OPSET}: export it again with "
            f"opset {MIN_OPSET} or later."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of a library's error, without its full stop."""
    return one_line(str(error).splitlines()[0]).rstrip(".")
