"""What commands that write a bundle can be asked for. Nothing here is slow to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
# auto: int8 for networks that are made for it and lose at most half a point by it, else float32.
PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]
Int8Target = Literal["auto", "u8s8", "s8s8"]
GraphKind = Literal["exits", "routed", "maps"]
# The order of axes and of colours of a network's input, what it returns, and how images of another shape are
# fitted.
Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr"]
Outputs = Literal["logits", "probabilities"]
ResizeRule = Literal["center_crop", "stretch"]


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle is written.

    `name` and `version` are the source's where they are None. `license_` is the licence of the weights on the
    model card. `int8_target` is the int8 type of activations and weights; auto takes the faster one of this
    machine. `graphs` are whole-network graphs to add. `allow_loss` writes the bundle even if the precision
    costs more than half a point.
    """

    name: str | None = None
    version: str | None = None
    license_: str = "unknown"
    precision: PrecisionChoice = "fp32"
    int8_target: Int8Target = "auto"
    graphs: tuple[GraphKind, ...] = ()
    allow_loss: bool = False
