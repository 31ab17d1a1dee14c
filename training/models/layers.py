"""Layers that backbones and heads share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

# From so many input channels on, a strided 1x1 convolution has a sound gradient on a CPU: the float32 values
# in a register of AVX-512.
MIN_STRIDED_CHANNELS = 16


class Depthwise(nn.Conv2d):
    """Convolution of each channel by itself, no bias: [N, C, H, W] -> [N, C, H/stride, W/stride].

    Without `padded` no zeros are added at the edges, for inputs that are padded already.

    Under bf16 autocast a CPU computes all but 3x3 without stride in float32: the other gradients are up to a
    hundred times slower there in bfloat16 (docs/design/decisions.md). The output is bfloat16.

    Training on a CPU adds zeros below and to the right of maps smaller than the kernel, and cuts the outputs
    off again, with the same result: oneDNN computes the gradient of the weights slowly there.
    """

    def __init__(self, channels: int, stride: int, kernel: int = 3, *, padded: bool = True) -> None:
        padding = kernel // 2 if padded else 0
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)
        self._fast_in_bf16 = kernel == 3 and stride == 1
        self._pads_small_maps = padded and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        if self._fast_in_bf16 or x.dtype != torch.bfloat16:
            return self._on_cpu(x)
        with torch.autocast("cpu", enabled=False):
            return self._on_cpu(x.float()).to(x.dtype)

    def _on_cpu(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        small = 1 < min(height, width) < self.kernel_size[0]
        if not (self.training and self._pads_small_maps and small):
            return super().forward(x)
        below, right = (max(self.kernel_size[0] - side, 0) for side in (height, width))
        outputs = super().forward(pad(x, (0, right, 0, below)))[:, :, :height, :width]
        # Batch norm is slow on a part of a tensor.
        return outputs.contiguous(memory_format=torch.channels_last)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, no bias: [N, cin, H, W] -> [N, cout, ceil(H/stride), ceil(W/stride)].

    With few input channels, training on a CPU selects the pixels first and then convolves without stride,
    with the same result: the strided gradient writes past its memory (docs/design/decisions.md).
    """

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__(cin, cout, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        safe = self.stride == (1, 1) or self.in_channels >= MIN_STRIDED_CHANNELS
        if safe or not self.training or x.device.type != "cpu":
            return super().forward(x)
        vertical, horizontal = self.stride
        return conv2d(x[:, :, ::vertical, ::horizontal], self.weight)


class SamePad(nn.Module):
    """TensorFlow's SAME padding for a convolution of `kernel` and `stride` that pads nothing itself.

    After the convolution a side of s pixels is ceil(s / stride). An odd zero goes to the bottom and
    the right, so for stride 2 and an even side the zeros are not symmetric.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._zeros(x.shape[-2])
        left, right = self._zeros(x.shape[-1])
        return pad(x, (left, right, top, bottom))

    def _zeros(self, side: int) -> tuple[int, int]:
        outputs = -(-side // self.stride)
        zeros = max((outputs - 1) * self.stride + self.kernel - side, 0)
        return zeros // 2, zeros - zeros // 2


class Resize(nn.Module):
    """Bilinear resizing to a square: [N, C, H, W] -> [N, C, side, side]; with `antialias` shrinking averages
    over all pixels, as in Pillow."""

    def __init__(self, side: int, antialias: bool = False) -> None:
        super().__init__()
        self.side = side
        self.antialias = antialias

    def forward(self, x: Tensor) -> Tensor:
        # Without shrinking the two filters are the same.
        antialias = self.antialias and max(x.shape[2:]) > self.side
        size = (self.side, self.side)
        return interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)
