"""Augmentations follow their description, and depend on the seed only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from training.data.augment import augment, crop_and_flip, cutout, resized_crop, rotate
from training.recipes.schema import DataRecipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=seeded(9))


def smooth(count: int, side: int) -> torch.Tensor:
    """Images without sharp edges, where interpolation anywhere gives about the same value."""
    wave = torch.sin(torch.linspace(0, 3, side))
    pixels = 120 + 100 * wave[:, None] * torch.linspace(-1, 1, side)[None]
    return pixels.to(torch.uint8)[None, ..., None].expand(count, side, side, 3).contiguous()


def test_every_crop_is_a_shifted_or_mirrored_original() -> None:
    images = noise(40, 6, 6, 3)
    out = crop_and_flip(images, 2, True, seeded())
    padded = torch.nn.functional.pad(images, (0, 0, 2, 2, 2, 2))
    mirrored = 0
    for original, cropped in zip(padded, out, strict=True):
        crops = [original[i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
        straight = any(torch.equal(cropped, crop) for crop in crops)
        flipped = any(torch.equal(cropped, crop.flip(1)) for crop in crops)
        assert straight or flipped
        mirrored += flipped and not straight
    assert 10 <= mirrored <= 30


def test_without_padding_and_flip_images_are_unchanged() -> None:
    images = noise(4, 5, 7, 3)
    assert torch.equal(crop_and_flip(images, 0, False, torch.Generator()), images)


@pytest.mark.parametrize(("degrees", "quarters"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_a_quarter_turn_is_counter_clockwise_and_exact(degrees: int, quarters: int) -> None:
    images = noise(3, 8, 8, 3)
    turned = rotate(images, torch.full((3,), float(degrees)))
    assert torch.equal(turned, images.rot90(quarters, (1, 2)))


@pytest.mark.parametrize("degrees", [-33.0, 7.5, 60.0])
def test_rotation_is_that_of_torchvision(degrees: float) -> None:
    images = noise(2, 12, 18, 3)
    expected = v2.functional.rotate(
        images.permute(0, 3, 1, 2), degrees, interpolation=v2.InterpolationMode.BILINEAR
    ).permute(0, 2, 3, 1)
    found = rotate(images, torch.full((2,), degrees))
    assert (found.int() - expected.int()).abs().max() <= 1


def test_every_image_is_rotated_by_its_own_angle_within_the_limit() -> None:
    images = smooth(64, 16)
    recipe = DataRecipe(name="digits", held_out=1, padding=0, flip=False, rotation=20)
    out = augment(images, recipe, seeded(), torch.zeros(3, dtype=torch.uint8)).int()
    angles = torch.arange(-40.0, 41.0)
    candidates = rotate(smooth(len(angles), 16), angles).int()
    apart = (out[:, None] - candidates[None]).abs().sum((2, 3, 4))
    nearest = angles[apart.argmin(1)]
    assert -20 <= nearest.min() < -15
    assert 15 < nearest.max() <= 20


def test_a_resized_crop_has_the_configured_area_and_aspect_ratio() -> None:
    side, count = 64, 400
    ramp = torch.arange(side, dtype=torch.uint8) * 3
    down, across = ramp[:, None].expand(side, side), ramp[None].expand(side, side)
    image = torch.stack([down, across, down], -1)
    out = resized_crop(image.expand(count, side, side, 3), (0.25, 0.5), seeded()).float()
    # Away from the border, where neighbours outside count as black, the ramp's slope is the zoom.
    inner = slice(16, 48)
    height = (out[:, 47, 32, 0] - out[:, 16, 32, 0]) / (31 * 3)
    width = (out[:, 32, 47, 1] - out[:, 32, 16, 1]) / (31 * 3)
    area, aspect = height * width, width / height
    assert 0.23 < area.min() < 0.3
    assert 0.45 < area.max() < 0.52
    assert 0.72 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.4
    middle = out[:, inner, inner, 0].mean((1, 2)) / 3
    assert middle.min() < 24
    assert middle.max() > 40


def test_a_resized_crop_stays_inside_the_image() -> None:
    white = torch.full((200, 33, 33, 3), 255, dtype=torch.uint8)
    out = resized_crop(white, (0.1, 0.9), seeded())
    assert (out[:, 1:-1, 1:-1] == 255).all()


def test_cutout_blanks_one_square_that_may_reach_outside() -> None:
    images = torch.full((600, 10, 12, 3), 7, dtype=torch.uint8)
    blank = torch.tensor([1, 2, 3], dtype=torch.uint8)
    out = cutout(images, 4, seeded(), blank)
    covered = (out == blank).all(-1)
    assert ((out == 7).all(-1) ^ covered).all()
    heights, widths = covered.any(2).sum(1), covered.any(1).sum(1)
    assert torch.equal(covered.sum((1, 2)), heights * widths)
    assert set(heights.tolist()) == set(widths.tolist()) == {2, 3, 4}
    # Every pixel is as likely to be the centre: the middle is covered 16 times as often as one pixel.
    assert covered[:, 5, 6].float().mean() == pytest.approx(16 / 120, abs=0.05)


def test_the_operations_are_applied_in_order() -> None:
    """Cutout is last: its square is not rotated or mirrored and keeps its colour."""
    recipe = DataRecipe(
        name="digits",
        held_out=1,
        scale=(0.5, 1.0),
        rotation=30,
        autoaugment="cifar10",
        cutout=6,
    )
    blank = torch.tensor([11, 13, 17], dtype=torch.uint8)
    plain = recipe.model_copy(update={"cutout": 0})
    images = noise(60, 20, 20, 3)
    generator = seeded()
    expected = cutout(augment(images, plain, generator, blank), 6, generator, blank)
    assert torch.equal(augment(images, recipe, seeded(), blank), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"padding": 2},
        {"scale": (0.3, 1.0)},
        {"rotation": 15.0},
        {"autoaugment": "cifar10"},
        {"autoaugment": "imagenet"},
        {"cutout": 4},
    ],
)
def test_each_field_changes_images_and_follows_from_the_seed(fields: dict[str, object]) -> None:
    recipe = DataRecipe.model_validate(
        {"name": "digits", "held_out": 1, "padding": 0, "flip": False, **fields}
    )
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    )
    blank = torch.zeros(3, dtype=torch.uint8)
    out = augment(images, recipe, seeded(1), blank)
    assert out.dtype == torch.uint8
    assert out.shape == images.shape
    assert torch.equal(out, augment(images, recipe, seeded(1), blank))
    assert not torch.equal(out, augment(images, recipe, seeded(2), blank))
    assert not torch.equal(out, images)
