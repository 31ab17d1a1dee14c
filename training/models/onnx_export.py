"""A torch module as an ONNX model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MAX_BATCH = 1 << 16


def to_onnx(module: nn.Module, images: Tensor, image: str, outputs: Sequence[str]) -> Any:
    """The onnx.ModelProto of `module`, on the CPU and in eval mode, with its weights; its input `image` is
    like `images`, with a dynamic batch, and `outputs` names what it returns.

    torch's exporter takes seconds for a network of any size.
    """
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


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
