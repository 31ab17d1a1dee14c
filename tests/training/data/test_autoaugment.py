"""AutoAugment on a batch is torchvision's AutoAugment image by image."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torchvision.transforms import v2

from training.data.autoaugment import autoaugment

COUNT = 250


def noisy_and_smooth() -> torch.Tensor:
    """Half noise, half with few and smooth values, which equalising and autocontrast treat differently."""
    images = torch.randint(
        0, 256, (COUNT, 12, 10, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
    )
    images[: COUNT // 2] = images[: COUNT // 2] // 8 + torch.arange(12)[None, :, None, None] * 9
    return images


def draws(seed: int) -> tuple[list[int], list[list[float]], list[list[int]]]:
    """The draws that the module documents: a sub-policy, then chance and sign of two operations."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(25, (COUNT,), generator=generator)
    chance = torch.rand(2, COUNT, generator=generator)
    positive = torch.randint(2, (2, COUNT), generator=generator)
    return chosen.tolist(), chance.T.tolist(), positive.T.tolist()


def alone(
    image: torch.Tensor,
    transform: v2.AutoAugment,
    chosen: int,
    chance: list[float],
    positive: list[int],
) -> torch.Tensor:
    """torchvision's transform of one image [H, W, 3], with these random numbers."""

    def numbers() -> Iterator[float]:
        operations = transform._policies[chosen]
        for (name, probability, level), own, plus in zip(operations, chance, positive, strict=True):
            yield own
            if own <= probability and level is not None and name not in ("Posterize", "Solarize"):
                yield 1.0 if plus else 0.0

    given = numbers()
    with (
        mock.patch("torch.randint", return_value=torch.tensor(chosen)),
        mock.patch("torch.rand", side_effect=map(torch.tensor, given)),
    ):
        out: torch.Tensor = transform(image.permute(2, 0, 1))
    assert next(given, None) is None
    return out.permute(1, 2, 0)


@pytest.mark.parametrize("policy", ["cifar10", "imagenet"])
def test_every_image_equals_torchvisions_result(policy: str) -> None:
    images = noisy_and_smooth()
    found = autoaugment(images, policy, torch.Generator().manual_seed(3))  # type: ignore[arg-type]
    transform = v2.AutoAugment(v2.AutoAugmentPolicy(policy))
    for position, drawn in enumerate(zip(*draws(3), strict=True)):
        expected = alone(images[position], transform, *drawn)
        assert torch.equal(found[position], expected), transform._policies[drawn[0]]


def test_the_input_is_not_changed() -> None:
    images = noisy_and_smooth()
    autoaugment(images, "cifar10", torch.Generator())
    assert torch.equal(images, noisy_and_smooth())
