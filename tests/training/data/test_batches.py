"""An epoch's batches follow from the recipe, the seed and the epoch, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import batches
from training.data.augment import crop_and_flip
from training.data.batches import DeviceDataset
from training.data.dataset import Split
from training.errors import RecipeError
from training.recipes.schema import DataRecipe, Recipe
from training.run import run_recipe

CPU = torch.device("cpu")


def device_dataset(count: int = 70, side: int = 8) -> DeviceDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return DeviceDataset.of(Split(images, np.arange(count)), CPU)


def recipe(**fields: object) -> DataRecipe:
    return DataRecipe.model_validate({"name": "digits", "held_out": 1, "padding": 1, **fields})


def test_every_sample_comes_at_most_once_and_whole_batches_only() -> None:
    data = device_dataset(20)

    def epoch(seed: int, number: int) -> list[list[int]]:
        return [b.labels.tolist() for _, b in data.shuffled(6, recipe(), seed, number)]

    assert epoch(0, 1) == epoch(0, 1)
    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(0, 1) != epoch(1, 1)
    seen = [label for batch in epoch(0, 1) for label in batch]
    assert len(seen) == len(set(seen)) == 18


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True)])
def test_plain_batches_draw_an_order_and_then_crops_batch_by_batch(
    padding: int, flip: bool
) -> None:
    """These draws must not change: runs of earlier versions resume with the same data."""
    data = device_dataset()
    generator = torch.Generator().manual_seed((3 << 20) + 2)
    order = torch.randperm(70, generator=generator)
    count = 0
    for images, batch in data.shuffled(16, recipe(padding=padding, flip=flip), 3, 2):
        chosen = order[16 * count : 16 * (count + 1)]
        assert torch.equal(batch.labels, chosen)
        assert torch.equal(batch.index, chosen)
        expected = crop_and_flip(data.images[chosen], padding, flip, generator)
        assert torch.equal(images, expected)
        count += 1
    assert count == 4


@pytest.mark.parametrize(
    "fields",
    [{"autoaugment": "cifar10"}, {"autoaugment": "imagenet", "cutout": 3}, {"scale": (0.5, 1.0)}],
)
def test_augmented_batches_follow_from_seed_and_epoch_and_hold_the_images_they_name(
    fields: dict[str, object],
) -> None:
    data, chosen = device_dataset(), recipe(**fields)
    first = list(data.shuffled(16, chosen, 1, 0))
    again = list(data.shuffled(16, chosen, 1, 0))
    other = list(data.shuffled(16, chosen, 1, 1))
    assert [len(images) for images, _ in first] == [16] * 4
    for (a, x), (b, y), (c, _) in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(x.index, y.index)
        assert torch.equal(x.labels, data.labels[x.index])
        assert not torch.equal(a, c)


def test_autoaugment_takes_several_batches_at_once_but_not_more_than_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def note(images: torch.Tensor, *_: object) -> torch.Tensor:
        sizes.append(len(images))
        return images

    monkeypatch.setattr(batches, "augment", note)
    monkeypatch.setattr(batches, "MAX_CHUNK_IMAGES", 40)
    data = device_dataset()
    for fields in ({}, {"autoaugment": "cifar10"}):
        assert len(list(data.shuffled(16, recipe(**fields), 0, 0))) == 4
    assert sizes == [16, 16, 16, 16, 32, 32]
    sizes.clear()
    monkeypatch.setattr(batches, "MAX_CHUNK_PIXELS", 20 * 8 * 8)
    assert len(list(data.shuffled(16, recipe(autoaugment="cifar10"), 0, 0))) == 4
    assert sizes == [16, 16, 16, 16]


def test_cutout_blanks_with_the_mean_colour_of_the_split() -> None:
    data = device_dataset()
    mean = data.images.double().mean((0, 1, 2))
    assert data.mean_colour.dtype == torch.uint8
    assert (data.mean_colour.double() - mean).abs().max() <= 0.5
    covered = [
        (images == data.mean_colour).all(-1).any()
        for images, _ in data.shuffled(16, recipe(cutout=4), 0, 0)
    ]
    assert all(covered)


def photos(directory: Path) -> None:
    for name in ("dark", "light"):
        (directory / name).mkdir(parents=True)
        for number in range(15):
            shade = number + (200 if name == "light" else 0)
            image = Image.new("RGB", (40, 50), (shade, shade, shade))
            image.save(directory / name / f"{number}.png")


def test_a_teacher_trained_on_one_folder_is_refused_for_another(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    photos(tmp_path / "others")
    data = {
        "name": "folder",
        "path": "photos",
        "side": 32,
        "held_out": 4,
        "scale": [0.5, 1.0],
        "rotation": 10,
        "autoaugment": "imagenet",
        "cutout": 8,
    }
    teacher = {
        "name": "mine",
        "data": data,
        "network": {"name": "resnet10", "width": 4},
        "objective": {"method": "cross_entropy"},
        "train": {"epochs": 1, "batch_size": 10},
    }
    places = {"runs": tmp_path / "runs", "data_root": tmp_path}
    config = run_recipe(Recipe.model_validate(teacher), **places, device="cpu")
    assert config.classes == ("dark", "light")
    assert config.image_size == (32, 32)
    student = {
        **teacher,
        "name": "student",
        "data": {**data, "path": "others"},
        "objective": {"method": "mskd"},
        "teacher": {"recipe": "mine"},
    }
    with pytest.raises(RecipeError, match="trained on another data set"):
        run_recipe(Recipe.model_validate(student), **places, device="cpu")
