"""Export of a multi-exit network from torch: one ONNX graph per stage, with its cost."""

from __future__ import annotations

import torch
from onnx import ModelProto
from onnx.utils import Extractor
from torch import Tensor, nn

from exports.bundle.reader import IMAGE, features_of
from exports.graphs.onnx_tools import rename_output, serialised
from exports.graphs.stage_graph import StageGraph
from exports.graphs.upsample import resizes_as_products
from training.models.cost import count_macs, count_parameters
from training.models.multi_exit import MultiExit, Normalize
from training.models.onnx_export import to_onnx


class _Stages(nn.Module):
    """All stages of a network: uint8 [N, H, W, 3] -> features and logits of each stage, but only logits of
    the last."""

    def __init__(self, network: MultiExit, normalize: Normalize) -> None:
        super().__init__()
        self.segments = nn.ModuleList(network.segments())
        self.heads = network.heads
        self.segments[0] = nn.Sequential(normalize, self.segments[0])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, outputs = images, list[Tensor]()
        for segment, head in zip(self.segments, self.heads, strict=True):
            features = segment(features)
            outputs += [features, head(features)]
        del outputs[-2]
        return tuple(outputs)


def export_stages(
    network: MultiExit, normalize: Normalize, image_size: tuple[int, int], first: int = 1
) -> list[StageGraph]:
    """Export every stage of `network` (on the CPU, in eval mode) as an ONNX graph in memory.

    `first` is the number in the bundle of the network's first stage, which takes the image. Inputs and
    outputs have the bundle's names. The batch is dynamic, the graph holds its weights, and bilinear
    upsampling is written as matrix products.
    """
    stages = _Stages(network, normalize.repeated(image_size[1])).eval()
    images = torch.zeros(2, *image_size, 3, dtype=torch.uint8)
    numbers = range(first, first + network.exits)
    names = [name for k in numbers for name in (features_of(k), f"logits{k}")]
    del names[-2]
    # torch's exporter takes seconds for a network of any size, so all stages are exported at once.
    extractor = Extractor(resizes_as_products(to_onnx(stages, images, IMAGE, names)))
    graphs: list[StageGraph] = []
    inputs = images[:1]
    for k, segment, head in zip(numbers, stages.segments, stages.heads, strict=True):
        last = k == numbers[-1]
        outputs = [f"logits{k}"] if last else [features_of(k), f"logits{k}"]
        if k == first:
            stage = extractor.extract_model([IMAGE], outputs)
        else:
            stage = extractor.extract_model([IMAGE, features_of(k - 1)], outputs)
            _take_batch_size_from(stage, features_of(k - 1))
        rename_output(stage, f"logits{k}", "logits")
        with torch.no_grad():
            features = segment(inputs)
        graphs.append(
            StageGraph(
                onnx=serialised(stage),
                input="image" if k == first else "features",
                macs=count_macs(segment, inputs) + count_macs(head, features),
                params=count_parameters(segment) + count_parameters(head),
                feature_shape=None if last else tuple(features.shape[1:]),
            )
        )
        inputs = features
    return graphs


def _take_batch_size_from(stage: ModelProto, features: str) -> None:
    """Remove the image, the first input of `stage`, of which the exporter reads only the batch size."""
    graph = stage.graph
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == IMAGE:
            node.input[0] = features
    del graph.input[0]
