"""Augmentation of a whole batch at once, on the device the images are on."""

from __future__ import annotations

import torch
from torch import Tensor


def crop_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crops of the zero-padded images, half of them mirrored if `flip`.

    uint8 [N, H, W, 3] -> the same shape and type. Draws from `generator` (a CPU one) so that a
    batch depends on the seed alone and not on the device.
    """
    count, height, width, _ = images.shape
    if padding:
        images = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    draw = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    rows = draw[0, :, None] + torch.arange(height)
    columns = draw[1, :, None] + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    sample = torch.arange(count)[:, None, None]
    index = (sample, rows[:, :, None], columns[:, None, :])
    return images[tuple(part.to(images.device) for part in index)]
