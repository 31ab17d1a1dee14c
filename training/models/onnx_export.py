"""A torch module as an ONNX model."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

MAX_BATCH = 1 << 16
IN_PLACE = (nn.ReLU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU)


def to_onnx(module: nn.Module, images: Tensor, image: str, outputs: Sequence[str]) -> Any:
    """The onnx.ModelProto of `module`, on the CPU and in eval mode, with its weights; its input `image` is
    like `images`, with a dynamic batch, and `outputs` names what it returns.

    torch's exporter takes seconds for a network of any size.
    """
    module = copy.deepcopy(module)
    _simplify(module)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    # The exporter prints its steps and warns about packages it does not need.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _quiet_logging():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (images,),
            input_names=[image],
            output_names=list(outputs),
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto


def _simplify(module: nn.Module) -> None:
    """Change `module` to one of the same function that takes the exporter half the time: activations that
    are not in place, and no batch normalisation directly after a convolution."""
    for part in module.modules():
        if isinstance(part, IN_PLACE):
            part.inplace = False
        if not isinstance(part, nn.Sequential):
            continue
        for (before, convolution), (name, norm) in itertools.pairwise(list(part.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, before, fuse_conv_bn_eval(convolution, norm))
                setattr(part, name, nn.Identity())


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
