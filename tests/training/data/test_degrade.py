"""Degradations change some images a little, depend on the seed only, and keep shape and type."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.augment import augment
from training.data.degrade import UPLOAD_QUALITIES, blur, compress, degrade, recompress, rescale
from training.recipes.schema import DataRecipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=seeded(9))


def changed(before: torch.Tensor, after: torch.Tensor) -> int:
    return int((before != after).flatten(1).any(dim=1).sum())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_about_the_given_share_of_images_changes(share: float) -> None:
    images = noise(400)
    degraded = degrade(images, share, seeded())
    assert (degraded.shape, degraded.dtype) == (images.shape, torch.uint8)
    assert changed(images, degraded) == pytest.approx(400 * share, abs=50)


def test_the_same_seed_degrades_in_the_same_way() -> None:
    images = noise(40)
    first, again, other = (degrade(images, 0.8, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_given_images_are_not_written_to() -> None:
    images = noise(20)
    before = images.clone()
    degrade(images, 1.0, seeded())
    assert torch.equal(images, before)


def test_compression_is_close_to_pillows() -> None:
    wave = torch.linspace(0, 255, 32).to(torch.uint8)
    image = torch.stack(
        [wave[None].expand(32, 32), wave[:, None].expand(32, 32), wave.flip(0)[None].expand(32, 32)]
    )
    ours = compress(image[None], quality=50)[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=50)
    theirs = np.asarray(Image.open(file))
    assert np.abs(ours.astype(int) - theirs.astype(int)).mean() < 3


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_about_the_given_share_of_images_is_compressed(share: float) -> None:
    images = noise(400)
    before = images.clone()
    compressed = recompress(images, share, seeded())
    assert torch.equal(images, before)
    assert changed(images, compressed) == pytest.approx(400 * share, abs=40)
    assert torch.equal(compressed, recompress(images, share, seeded()))


def test_an_image_is_compressed_with_one_of_the_qualities() -> None:
    images = noise(1).expand(60, 32, 32, 3)
    pixels = images[:1].permute(0, 3, 1, 2)
    known = [compress(pixels, quality)[0].permute(1, 2, 0) for quality in UPLOAD_QUALITIES]
    found = {
        next(n for n, each in enumerate(known) if torch.equal(each, image))
        for image in recompress(images, 1.0, seeded())
    }
    assert len(found) > len(UPLOAD_QUALITIES) / 2


def test_blur_and_rescaling_keep_flat_images_and_smooth_edges() -> None:
    flat = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    edge = flat.clone()
    edge[..., 16:] = 200
    for operation in (lambda x: blur(x, 1.0), lambda x: rescale(x, 0.5)):
        assert torch.equal(operation(flat), flat)
        steps = operation(edge)[0, 0, 16].int().diff()
        assert 0 < int(steps.max()) < 100
        assert int(steps.sum()) == 100


def test_a_recipe_asks_for_it_and_has_none_by_default() -> None:
    images = noise(60)
    plain = DataRecipe(name="digits", held_out=10, padding=0, flip=False)
    blank = torch.zeros(3, dtype=torch.uint8)
    assert torch.equal(augment(images, plain, seeded(), blank), images)
    for damage in ({"degrade": 1.0}, {"jpeg": 1.0}):
        damaged = augment(images, plain.model_copy(update=damage), seeded(), blank)
        assert changed(images, damaged) > 50
        assert plain.model_copy(update=damage).undamaged == plain
