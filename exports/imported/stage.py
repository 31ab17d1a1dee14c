"""From a classifier to a stage of a bundle, compared with the classifier itself on real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.compose
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exports.bundle.errors import ExportError
from exports.bundle.policy import Floats
from exports.bundle.preprocessing.spec import Preprocessing
from exports.bundle.reader import IMAGE, MAX_SPREAD
from exports.bundle.untrusted.safe_files import MAX_FILE_BYTES, one_line
from exports.graphs.cost import count_graph_macs, count_graph_parameters
from exports.graphs.onnx_tools import serialised
from exports.graphs.stage_graph import StageGraph
from exports.imported.network import Network
from exports.imported.preprocessing import PREFIX, preprocessing_nodes
from exports.options import Outputs
from offramp.onnx_runtime import load_onnxruntime, session_errors, session_options

# Below it the logarithm of a probability is cut off.
MIN_PROBABILITY = 1e-7
# Sums of probabilities in float16 are about this far from 1.
MAX_SUM_ERROR = 5e-3
# Of logits, relative to the largest; graph optimisations differ by rounding.
TOLERANCE = 1e-3
# Of the inputs of a file with a fixed batch.
MAX_BATCH_BYTES = 1 << 30
OWN = "network/"
BATCH_SIZES = (1, 4)
FATAL_ONLY = 4


@dataclass(frozen=True)
class Imported:
    """A classifier as a stage, and what was found out about it."""

    network: Network
    preprocessing: Preprocessing
    outputs: Outputs
    graph: StageGraph


def run_original(
    network: Network, preprocessing: Preprocessing, images: NDArray[np.uint8]
) -> Floats:
    """What the classifier returns for images uint8 [N, S, S, 3], preprocessed with numpy: float32 [N, C].

    Images are run one by one; a fixed batch is filled with copies. Raises ExportError if onnxruntime cannot
    run it, if a fixed batch is too large, or if the outputs are not finite, too far apart, or not one value
    for each class.
    """
    model = ModelProto()
    model.CopyFrom(network.model)
    if network.batch is not None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = network.batch
    rows = []
    one = preprocessing.apply(images[:1])
    if one.nbytes * (network.batch or 1) > MAX_BATCH_BYTES:
        raise ExportError(
            f"{network.path} is made for batches of {network.batch}; export it with a dynamic batch."
        )
    try:
        session = _session(model.SerializeToString())
        for image in images:
            inputs = preprocessing.apply(image[None])
            inputs = np.repeat(inputs, network.batch or 1, axis=0)
            rows.append(np.asarray(session.run(None, {network.input: inputs})[0]))
    except session_errors() as error:
        raise ExportError(f"{network.path} cannot be run: {_reason(error)}.") from error
    shape = rows[0].shape
    if (
        len(shape) not in (2, 4)
        or shape[0] != (network.batch or 1)
        or shape[2:] not in ((), (1, 1))
    ):
        raise ExportError(
            f"{network.path} returns {list(shape)} for {network.batch or 1} images, not one value for "
            "each class."
        )
    values: Floats = np.stack([row[0].reshape(-1) for row in rows]).astype(np.float32)
    if not np.isfinite(values).all():
        raise ExportError(f"{network.path} returns NaN or infinite values for images.")
    spread = float(np.ptp(values, axis=1).max())
    if spread > MAX_SPREAD:
        raise ExportError(
            f"{network.path} returns values up to {spread:.4g} apart for one image; at most {MAX_SPREAD:g} "
            "can be calibrated: divide them by a constant in the graph."
        )
    return values


def detect_outputs(values: Floats, network: Network) -> Outputs:
    """Whether `values` [N, C] are logits or probabilities.

    Raises ExportError if they lie in 0..1 without a sum of 1, as independent sigmoids do.
    """
    if values.min() < 0 or values.max() > 1 + MAX_SUM_ERROR:
        return "logits"
    if np.abs(values.sum(axis=1) - 1).max() <= MAX_SUM_ERROR:
        return "probabilities"
    raise ExportError(
        f"the outputs of {network.path} are between 0 and 1, but do not sum to 1: it may not choose one of "
        "its classes; if they are logits, give --outputs logits."
    )


def as_logits(values: Floats, outputs: Outputs, mapping: NDArray[np.int64] | None) -> Floats:
    """The bundle's logits [N, C] for the outputs of a classifier."""
    if outputs == "probabilities":
        values = np.log(np.maximum(values, np.float32(MIN_PROBABILITY)))
    return values if mapping is None else values[:, mapping]


def build_stage(
    network: Network,
    preprocessing: Preprocessing,
    source: int,
    outputs: Outputs,
    mapping: NDArray[np.int64] | None,
    classes: int,
) -> bytes:
    """The classifier as a stage: image uint8 [N, S, S, 3], S = `source`, to logits float32 [N, C]."""
    model = onnx.compose.add_prefix(network.model, OWN)
    graph = model.graph
    before, constants = preprocessing_nodes(preprocessing, source, OWN + network.input)
    after: list[NodeProto] = []
    last = OWN + network.output

    def add(kind: str, output: str, *inputs: Any, **attributes: Any) -> None:
        nonlocal last
        names = [f"{PREFIX}{output}.{position}" for position in range(len(inputs))]
        for name, value in zip(names, inputs, strict=True):
            constants.append(numpy_helper.from_array(np.asarray(value), name))
        after.append(
            helper.make_node(kind, [last, *names], [output], name=f"{PREFIX}{output}", **attributes)
        )
        last = output

    add("Cast", "values", to=TensorProto.FLOAT)
    add("Flatten", "rows", axis=1)
    if outputs == "probabilities":
        add("Max", "positive", np.float32(MIN_PROBABILITY))
        add("Log", "log_probabilities")
    if mapping is not None:
        add("Gather", "in_order", mapping, axis=1)
    add("Identity", "logits")
    own = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*before, *own, *after])
    graph.initializer.extend(constants)
    shape = ["batch", source, source, 3]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
    graph.output.append(logits)
    content = serialised(model)
    if len(content) > MAX_FILE_BYTES:
        raise ExportError(
            f"{network.path} has {len(content)} bytes as a stage; at most {MAX_FILE_BYTES} are allowed."
        )
    return content


def verify_stage(
    network: Network, content: bytes, images: NDArray[np.uint8], expected: Floats
) -> float:
    """Compare the stage `content` with the classifier's own logits `expected` [N, C] on `images`, in batches
    of 1 and of 4. Returns the largest absolute difference.

    Raises ExportError if one is too large, or if a batch cannot be run, as in a graph with a fixed batch.
    """
    largest = 0.0
    session = _session(content)
    for size in BATCH_SIZES:
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        try:
            actual = np.concatenate([session.run(None, {IMAGE: batch})[0] for batch in batches])
        except session_errors() as error:
            if size == 1:
                raise ExportError(f"{network.path} cannot be run: {_reason(error)}.") from error
            raise ExportError(
                f"{network.path} cannot be run in batches of {size}: its graph has a fixed batch of "
                f"{network.batch or 1}; export it with a dynamic batch."
            ) from error
        difference = (
            float(np.abs(actual - expected).max()) if actual.shape == expected.shape else np.inf
        )
        # `not <=` also refuses NaN.
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ExportError(
                f"{network.path} gives other logits in batches of {size} than alone (by {difference:.2g}); "
                "export it with a dynamic batch."
            )
        largest = max(largest, difference)
    return largest


def stage_graph(network: Network, content: bytes, image: NDArray[np.uint8]) -> StageGraph:
    """The stage with its cost for one image uint8 [1, S, S, 3]. The products that resize are counted."""
    macs = count_graph_macs(content, {IMAGE: image})
    if macs == 0:
        raise ExportError(
            f"{network.path} has no convolution or matrix product, so it has no cost."
        )
    params = max(count_graph_parameters(network.model), 1)
    return StageGraph(content, "image", macs, params, None)


def _session(content: bytes) -> Any:
    """A session that logs nothing: its errors become sentences."""
    options = session_options()
    options.log_severity_level = FATAL_ONLY
    return load_onnxruntime().InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _reason(error: Exception) -> str:
    return one_line(str(error).splitlines()[0]).rstrip(".")
