"""AutoAugment (Cubuk et al. 2018) for whole batches: torchvision's policies and operations.

An image draws one of 25 sub-policies; each of its two operations has a fixed strength and a fixed
probability, some a random sign. Images of a batch with the same operation are processed in one call.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional

LEVELS = 10
# Magnitudes of the weakest and the strongest level; translations are shares of the side,
# solarising is of the range of values.
RANGES = {
    "ShearX": (0.0, 0.3),
    "ShearY": (0.0, 0.3),
    "TranslateX": (0.0, 150.0 / 331.0),
    "TranslateY": (0.0, 150.0 / 331.0),
    "Rotate": (0.0, 30.0),
    "Brightness": (0.0, 0.9),
    "Color": (0.0, 0.9),
    "Contrast": (0.0, 0.9),
    "Sharpness": (0.0, 0.9),
    "Solarize": (1.0, 0.0),
}
SIGNED = RANGES.keys() - {"Solarize"}
COLOURS = {
    "Brightness": functional.adjust_brightness,
    "Color": functional.adjust_saturation,
    "Contrast": functional.adjust_contrast,
    "Sharpness": functional.adjust_sharpness,
}
PLAIN = {
    "AutoContrast": functional.autocontrast,
    "Equalize": functional.equalize,
    "Invert": functional.invert,
}


def autoaugment(
    images: Tensor, policy: Literal["cifar10", "imagenet"], generator: torch.Generator
) -> Tensor:
    """Apply a random sub-policy to every image, drawn from `generator` (a CPU one).

    uint8 [N, H, W, 3] -> the same shape and type. Image by image equal to AutoAugment of
    torchvision.transforms.v2 with its defaults (nearest neighbour, black outside). Large batches take
    less time per image.
    """
    policies = AutoAugment(AutoAugmentPolicy(policy)).policies
    count, height, width, _ = images.shape
    chosen = torch.randint(len(policies), (count,), generator=generator).tolist()
    chance = torch.rand(2, count, generator=generator).tolist()
    positive = torch.randint(2, (2, count), generator=generator).tolist()
    images = images.permute(0, 3, 1, 2).contiguous()
    for position in range(2):
        groups: dict[tuple[str, float], list[int]] = defaultdict(list)
        for sample, number in enumerate(chosen):
            name, probability, level = policies[number][position]
            if chance[position][sample] <= probability:
                size = magnitude(name, level, height, width)
                minus = name in SIGNED and not positive[position][sample]
                groups[name, -size if minus else size].append(sample)
        members = torch.tensor([s for group in groups.values() for s in group], dtype=torch.int64)
        sizes = [len(group) for group in groups.values()]
        for (name, size), group in zip(
            groups, torch.split(members.to(images.device), sizes), strict=True
        ):
            images[group] = apply(images[group], name, size)
    return images.permute(0, 2, 3, 1).contiguous()


@functools.cache
def magnitude(name: str, level: int | None, height: int, width: int) -> float:
    """The strength of operation `name` at `level` (0 to 9) for images of that size, without sign."""
    if level is None:
        return 0.0
    if name == "Posterize":
        return 8.0 - round(level * 4 / (LEVELS - 1))
    side = {"TranslateX": width, "TranslateY": height}.get(name, 1)
    weakest, strongest = RANGES[name]
    return torch.linspace(weakest, strongest * side, LEVELS)[level].item()


def apply(images: Tensor, name: str, size: float) -> Tensor:
    """Apply operation `name` to uint8 images [N, 3, H, W]. Raises KeyError for an unknown operation."""
    shear = math.degrees(math.atan(size))
    match name:
        case "ShearX":
            return _affine(images, shear=[shear, 0.0], center=[0.0, 0.0])
        case "ShearY":
            return _affine(images, shear=[0.0, shear], center=[0.0, 0.0])
        case "TranslateX":
            return _affine(images, translate=[int(size), 0])
        case "TranslateY":
            return _affine(images, translate=[0, int(size)])
        case "Rotate":
            return functional.rotate(images, size)
        case "Posterize":
            return functional.posterize(images, int(size))
        case "Solarize":
            return functional.solarize(images, 255.0 * size)
        case "AutoContrast" | "Equalize" | "Invert":
            return PLAIN[name](images)
        case _:
            return COLOURS[name](images, 1.0 + size)


def _affine(
    images: Tensor,
    translate: Sequence[int] = (0, 0),
    shear: Sequence[float] = (0.0, 0.0),
    center: list[float] | None = None,
) -> Tensor:
    return functional.affine(
        images, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=center
    )
