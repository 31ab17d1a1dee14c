"""What happens to images on their way to a service: JPEG compression, blur, rescaling, other colours.

A network that has never seen them loses accuracy on them: small images most.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional

# Each kind and its levels are drawn with the same probability. The range is that of ordinary uploads.
JPEG_QUALITIES = (30, 40, 50, 60, 70, 80, 90)
# Those of `data.jpeg`, which is for many images: lower ones cost a network of small images much accuracy.
UPLOAD_QUALITIES = (60, 70, 75, 80, 85, 90, 95)
# Standard deviation of the blur and the side of the rescaled image, as shares of the image's side.
BLURS = (0.01, 0.015, 0.02, 0.03, 0.04)
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9)
COLOUR_FACTORS = (0.5, 0.7, 0.85, 1.15, 1.4)
KERNEL_SIGMAS = 3

Operation = Callable[[Tensor], Tensor]


def degrade(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Apply one random degradation to about `share` of the images.

    uint8 [N, H, W, 3] -> the same shape and type. `generator` is a CPU one.
    """
    operations = _operations(min(images.shape[1:3]))
    count = len(images)
    chosen = torch.rand(count, generator=generator) < share
    kind = torch.randint(0, len(operations), (count,), generator=generator)
    level = torch.rand(count, generator=generator)
    degraded = images.clone()
    for k, levels in enumerate(operations):
        at = (level * len(levels)).long()
        for n, operation in enumerate(levels):
            index = torch.nonzero(chosen & (kind == k) & (at == n)).flatten().to(images.device)
            if len(index):
                pixels = images[index].permute(0, 3, 1, 2).contiguous()
                degraded[index] = operation(pixels).permute(0, 2, 3, 1)
    return degraded


def recompress(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Compress about `share` of the images as JPEG, each with one of UPLOAD_QUALITIES.

    uint8 [N, H, W, 3] -> the same shape and type. `generator` is a CPU one.
    """
    chosen = torch.rand(len(images), generator=generator) < share
    level = torch.randint(0, len(UPLOAD_QUALITIES), (len(images),), generator=generator)
    compressed = images.clone()
    for n, quality in enumerate(UPLOAD_QUALITIES):
        index = torch.nonzero(chosen & (level == n)).flatten().to(images.device)
        if len(index):
            pixels = images[index].permute(0, 3, 1, 2).contiguous()
            compressed[index] = compress(pixels, quality).permute(0, 2, 3, 1)
    return compressed


def compress(images: Tensor, quality: int) -> Tensor:
    """Encode and decode as JPEG: uint8 [N, 3, H, W] -> the same."""
    done = functional.jpeg(images.cpu(), quality)
    return done.to(images.device)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a standard deviation of `sigma` pixels: uint8 [N, 3, H, W] -> the same."""
    size = 2 * max(1, round(KERNEL_SIGMAS * sigma)) + 1
    return functional.gaussian_blur(images, [size, size], [sigma, sigma])


def rescale(images: Tensor, share: float) -> Tensor:
    """Shrink to `share` of the side and enlarge again: uint8 [N, 3, H, W] -> the same."""
    height, width = images.shape[-2:]
    small = (max(1, round(share * height)), max(1, round(share * width)))
    shrunk = interpolate(images.float(), size=small, mode="bilinear", antialias=True)
    enlarged = interpolate(shrunk, size=(height, width), mode="bilinear", align_corners=False)
    return enlarged.round().clamp(0, 255).to(torch.uint8)


def _operations(side: int) -> list[list[Operation]]:
    """The levels of each kind of degradation."""
    return [
        [partial(compress, quality=quality) for quality in JPEG_QUALITIES],
        [partial(blur, sigma=part * side) for part in BLURS],
        [partial(rescale, share=share) for share in SCALES],
        [partial(functional.adjust_brightness, brightness_factor=f) for f in COLOUR_FACTORS],
        [partial(functional.adjust_contrast, contrast_factor=f) for f in COLOUR_FACTORS],
        [partial(functional.adjust_saturation, saturation_factor=f) for f in COLOUR_FACTORS],
    ]
