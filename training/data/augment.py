"""Augmentation of a whole batch at once, on the device the images are on.

All random draws come from a CPU generator, so they are the same on every device. Crops, mirroring,
cutout and most AutoAugment operations give the same bytes on every device; where pixels are
interpolated, devices may differ in the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from training.data.autoaugment import autoaugment
from training.data.degrade import degrade, recompress
from training.recipes.schema import DataRecipe

ASPECT = (3 / 4, 4 / 3)


def augment(
    images: Tensor,
    recipe: DataRecipe,
    generator: torch.Generator,
    blank: Tensor,
    damage: torch.Generator | None = None,
) -> Tensor:
    """The augmentations of `recipe` in this order: resized crop, crop and mirroring, rotation,
    AutoAugment, degradation, JPEG compression, cutout.

    uint8 [N, H, W, 3] -> the same shape and type. `generator` is a CPU one; `blank` is the colour of
    cutout's squares, uint8 [3] on the images' device. With a generator `damage`, degradation and compression
    draw from that one, so that all other draws are those of a recipe without them.
    """
    damage = generator if damage is None else damage
    if recipe.scale is not None:
        images = resized_crop(images, recipe.scale, generator)
    images = crop_and_flip(images, recipe.padding, recipe.flip, generator)
    if recipe.rotation:
        degrees = recipe.rotation * (torch.rand(len(images), generator=generator) * 2 - 1)
        images = rotate(images, degrees)
    if recipe.autoaugment is not None:
        images = autoaugment(images, recipe.autoaugment, generator)
    if recipe.degrade:
        images = degrade(images, recipe.degrade, damage)
    if recipe.jpeg is not None:
        images = recompress(images, recipe.jpeg, damage)
    if recipe.cutout:
        images = cutout(images, recipe.cutout, generator, blank)
    return images


def crop_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crops of the zero-padded images, half of them mirrored if `flip`.

    uint8 [N, H, W, 3] -> the same shape and type. `generator` is a CPU one, so a batch depends on the
    seed and not on the device.
    """
    count, height, width, _ = images.shape
    if padding:
        images = pad(images, (0, 0, padding, padding, padding, padding))
    draw = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    rows = draw[0, :, None] + torch.arange(height)
    columns = draw[1, :, None] + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    sample = torch.arange(count)[:, None, None]
    index = (sample, rows[:, :, None], columns[:, None, :])
    return images[tuple(part.to(images.device) for part in index)]


def resized_crop(images: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Random crops of the images, resized to the whole size (Szegedy et al. 2015, section 6).

    A crop's share of the area is uniform in `scale`, the logarithm of its aspect ratio uniform between
    those of 3/4 and 4/3. A side longer than the image's is cut to it.
    uint8 [N, H, W, 3] -> the same shape and type.
    """
    count = len(images)
    area, aspect, x, y = torch.rand(4, count, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * area
    low, high = (math.log(ratio) for ratio in ASPECT)
    aspect = torch.exp(low + (high - low) * aspect)
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    zero = torch.zeros(count)
    to_x = torch.stack([width, zero, (1 - width) * (2 * x - 1)], 1)
    to_y = torch.stack([zero, height, (1 - height) * (2 * y - 1)], 1)
    return _warp(images, torch.stack([to_x, to_y], 1))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Each image rotated counter-clockwise about its centre by its `degrees` [N]; corners are black.

    uint8 [N, H, W, 3] -> the same shape and type.
    """
    _, height, width, _ = images.shape
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    zero = torch.zeros_like(cos)
    to_x = torch.stack([cos, -sin * height / width, zero], 1)
    to_y = torch.stack([sin * width / height, cos, zero], 1)
    return _warp(images, torch.stack([to_x, to_y], 1))


def cutout(images: Tensor, side: int, generator: torch.Generator, blank: Tensor) -> Tensor:
    """Fill a square of `side` pixels of every image with `blank` (DeVries & Taylor 2017).

    Its centre is any pixel, so at the border a part lies outside. The paper fills with zero after
    normalisation, hence `blank` should be the mean colour. uint8 [N, H, W, 3] -> the same.
    """
    count, height, width, _ = images.shape
    top = torch.randint(0, height, (count, 1), generator=generator) - side // 2
    left = torch.randint(0, width, (count, 1), generator=generator) - side // 2
    rows = (torch.arange(height) >= top) & (torch.arange(height) < top + side)
    columns = (torch.arange(width) >= left) & (torch.arange(width) < left + side)
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return torch.where(covered.to(images.device), blank, images)


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    """The images sampled through `matrices` [N, 2, 3], from output to input coordinates; bilinear."""
    pixels = images.permute(0, 3, 1, 2).float()
    grid = affine_grid(matrices.to(images.device), list(pixels.shape), align_corners=False)
    warped = grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.round().to(torch.uint8).permute(0, 2, 3, 1)
