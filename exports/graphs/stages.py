"""Export of a multi-exit network from torch: one ONNX graph per stage, with its cost."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch
from torch import Tensor, nn

from exports.bundle.manifest import StageInput
from exports.bundle.reader import stage_input, stage_outputs
from exports.graphs.onnx_tools import serialised
from exports.graphs.stage_graph import StageGraph
from exports.graphs.upsample import resizes_as_products
from training.models.cost import count_macs, count_parameters
from training.models.multi_exit import MultiExit, Normalize

MAX_BATCH = 1 << 16


class _Stage(nn.Module):
    """The computation of one file. `entry` normalises an image uint8 [N, H, W, 3], and passes features."""

    def __init__(self, entry: nn.Module, stage: nn.Module, head: nn.Module, last: bool) -> None:
        super().__init__()
        self.entry, self.stage, self.head, self.last = entry, stage, head, last

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.stage(self.entry(inputs))
        logits = self.head(features)
        return logits if self.last else (features, logits)


def export_stages(
    network: MultiExit, normalize: Normalize, image_size: tuple[int, int], first: int = 1
) -> list[StageGraph]:
    """Export every stage of `network` (on the CPU, in eval mode) as an ONNX graph in memory.

    `first` is the number in the bundle of the network's first stage, which takes the image. Inputs and
    outputs have the bundle's names. The batch is dynamic, the graph holds its weights, and bilinear
    upsampling is written as matrix products.
    """
    example = torch.zeros(2, *image_size, 3, dtype=torch.uint8)
    graphs: list[StageGraph] = []
    for k, (stage, head) in enumerate(zip(network.segments(), network.heads, strict=True), first):
        input_: StageInput = "image" if k == first else "features"
        last = k == first + network.exits - 1
        module = _Stage(normalize if k == first else nn.Identity(), stage, head, last).eval()
        macs = count_macs(module, example[:1])
        with torch.no_grad():
            outputs = module(example)
        onnx = _to_onnx(module, example, stage_input(k, input_), stage_outputs(k, not last))
        shape = None if last else tuple(outputs[0].shape[1:])
        params = count_parameters(module)
        graphs.append(StageGraph(onnx, input_, macs, params, shape))
        if not last:
            example = outputs[0]
    return graphs


def _to_onnx(module: nn.Module, example: Tensor, input_name: str, names: tuple[str, ...]) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    # The exporter prints its steps and warns about packages it does not need.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _quiet_logging():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[input_name],
            output_names=list(names),
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return serialised(resizes_as_products(program.model_proto))


@contextlib.contextmanager
def _quiet_logging():  # type: ignore[no-untyped-def]
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
