"""The stages of a multi-exit network, fitted to the image and the classes of a cascade."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.spec import Preprocessing
from exports.bundle.reader import IMAGE
from exports.graphs.onnx_tools import rename_input, rename_output, serialised
from exports.graphs.stage_graph import StageGraph
from exports.imported.labels import Labels, mapping
from exports.imported.multi_exit.source import MultiExitNetwork
from exports.imported.preprocessing import PREFIX, preprocessing_nodes
from exports.imported.stage import BATCH_SIZES, OWN, TOLERANCE
from exports.stage_runner import StageRunner

COLOURS = 3


@dataclass(frozen=True)
class Fitted:
    """The stages, and the recipes of their networks with how each prepares the image."""

    stages: tuple[StageGraph, ...]
    recipes: tuple[dict[str, Any], ...]


def fit_stages(
    network: MultiExitNetwork,
    classes: Labels,
    images: NDArray[np.uint8],
    say: Callable[[str], None],
) -> Fitted:
    """The stages of `network` for images of the size of `images` uint8 [N, S, S, 3], and for the order of
    `classes`.

    Every stage that takes the image resizes it to the network's own size, rounded to whole pixels as the
    network knows them. Raises ExportError if the classes differ, or if the stages give other logits on
    `images` than `network` does on the resized ones.
    """
    source, side = images.shape[1], network.side
    own = _resizing(side) if source != side else None
    positions = mapping(network.labels, classes, network.path)
    stages = tuple(_fit(stage, own, source, positions) for stage in network.stages)
    resized = images if own is None else own.apply(images)
    expected = StageRunner([stage.onnx for stage in network.stages]).logits(resized)
    if positions is not None:
        expected = expected[..., positions]
    runner = StageRunner([stage.onnx for stage in stages])
    apart = max(float(np.abs(runner.logits(images, size) - expected).max()) for size in BATCH_SIZES)
    # `not <=` also refuses NaN.
    if not apart <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"{network.path} gives other logits as part of a cascade than alone (by {apart:.2g})."
        )
    say(
        f"{network.path}: {len(stages)} stages for {side} x {side} pixels; they agree with it on "
        f"{len(images)} images: logits at most {apart:.1e} apart"
    )
    added = {} if own is None else {"input": own.model_dump(mode="json")}
    return Fitted(stages, tuple(recipe | added for recipe in network.recipes))


def _resizing(side: int) -> Preprocessing:
    """A network that takes uint8 images of `side` pixels itself."""
    return Preprocessing(
        side=side,
        resized=side,
        interpolation="bilinear",
        layout="nhwc",
        channels="rgb",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        whole=True,
    )


def _fit(
    stage: StageGraph, own: Preprocessing | None, source: int, positions: NDArray[np.int64] | None
) -> StageGraph:
    resizes = own is not None and stage.input == "image"
    if not resizes and positions is None:
        return stage
    model, macs = onnx.load_from_string(stage.onnx), stage.macs
    graph = model.graph
    if own is not None and resizes:
        rename_input(model, IMAGE, OWN + IMAGE)
        before, constants = preprocessing_nodes(own, source, OWN + IMAGE)
        nodes = [*before, *graph.node]
        del graph.node[:], graph.input[:]
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        shape = ["batch", source, source, COLOURS]
        graph.input.append(helper.make_tensor_value_info(IMAGE, onnx.TensorProto.UINT8, shape))
        macs += COLOURS * own.side * source * (source + own.side)
    if positions is not None:
        rename_output(model, "logits", OWN + "logits")
        graph.output[-1].name = "logits"
        name = f"{PREFIX}positions"
        graph.initializer.append(numpy_helper.from_array(positions, name))
        inputs = [OWN + "logits", name]
        graph.node.append(
            helper.make_node("Gather", inputs, ["logits"], name=f"{PREFIX}in_order", axis=1)
        )
    return replace(stage, onnx=serialised(model), macs=macs)
