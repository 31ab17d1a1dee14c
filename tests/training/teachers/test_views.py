"""A view follows from the augmentation and its number alone; a student of any seed uses the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.teachers.recipes import student
from training.data import batches
from training.data.augment import augment
from training.data.batches import VIEW_SEED, DeviceDataset, View
from training.data.dataset import Split
from training.recipes.schema import DataRecipe
from training.teachers.cached_views import view_of_epoch, views_of_run

CPU = torch.device("cpu")


def device_dataset(count: int = 70, side: int = 8) -> DeviceDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return DeviceDataset.of(Split(images, np.arange(count)), CPU)


def data_recipe(**fields: object) -> DataRecipe:
    return DataRecipe.model_validate({"name": "digits", "held_out": 1, "padding": 2, **fields})


def test_a_view_is_drawn_chunk_by_chunk_in_the_splits_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """These draws must not change: the logits in caches are for exactly these pixels."""
    monkeypatch.setattr(batches, "VIEW_CHUNK_IMAGES", 30)
    data, recipe = device_dataset(), data_recipe()
    generator = torch.Generator().manual_seed(VIEW_SEED + 5)
    blank = torch.zeros(3, dtype=torch.uint8)
    chunks = [
        augment(data.images[start : start + 30], recipe, generator, blank) for start in (0, 30, 60)
    ]
    assert torch.equal(data.augmented(recipe, 5), torch.cat(chunks))


@pytest.mark.parametrize(
    "fields", [{}, {"autoaugment": "cifar10"}, {"cutout": 3}, {"scale": (0.5, 1.0)}]
)
def test_views_repeat_exactly_and_differ_from_each_other(fields: dict[str, object]) -> None:
    data, recipe = device_dataset(), data_recipe(**fields)
    before = data.images.clone()
    first, again, other = (data.augmented(recipe, view) for view in (0, 0, 1))
    assert (first.shape, first.dtype) == (data.images.shape, torch.uint8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(data.images, before)


def test_damage_from_draws_of_its_own_leaves_all_other_draws_as_they_are() -> None:
    data = device_dataset()
    damaged = data_recipe(scale=(0.5, 1.0), degrade=0.3, jpeg=0.3, cutout=2)
    shown = data.augmented(damaged, 1, damage_apart=True)
    clean = data.augmented(damaged.undamaged, 1, damage_apart=True)
    same = (shown == clean).flatten(1).all(dim=1)
    assert 0.3 < float(same.float().mean()) < 0.7
    assert torch.equal(clean, data.augmented(damaged.undamaged, 1))


def test_large_images_are_augmented_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def note(images: torch.Tensor, *_: object) -> torch.Tensor:
        sizes.append(len(images))
        return images

    monkeypatch.setattr(batches, "augment", note)
    monkeypatch.setattr(batches, "VIEW_CHUNK_PIXELS", 32 * 8 * 8)
    device_dataset().augmented(data_recipe(), 0)
    assert sizes == [32, 32, 6]


def test_batches_of_a_view_hold_its_pixels_and_logits_in_the_order_of_online_batches() -> None:
    data, recipe = device_dataset(), data_recipe()
    logits = torch.arange(2 * 70 * 3).view(2, 70, 3).half()
    view = View(data.augmented(recipe, 1), data.labels, logits)
    online = [batch.index for _, batch in data.shuffled(16, recipe, 3, 2)]
    shown = list(view.shuffled(16, 3, 2))
    assert len(shown) == len(online) == 4
    for (images, batch), index in zip(shown, online, strict=True):
        assert torch.equal(batch.index, index)
        assert torch.equal(batch.labels, data.labels[index])
        assert torch.equal(images, view.images[index])
        assert batch.teacher_logits is not None
        assert batch.teacher_logits[0].dtype == torch.float32
        for k, exit_logits in enumerate(batch.teacher_logits):
            assert torch.equal(exit_logits, logits[k, index].float())


def test_processes_get_their_shares_of_every_batch_of_a_view() -> None:
    data = device_dataset()
    view = View(data.images, data.labels, torch.zeros(1, 70, 3).half())
    whole = [batch.index for _, batch in view.shuffled(16, 0, 0)]
    halves = [
        [batch.index for _, batch in view.shuffled(16, 0, 0, share)]
        for share in (slice(0, 8), slice(8, 16))
    ]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(batch, torch.cat([first, second]))


def test_epochs_use_the_views_in_turn_and_each_seed_begins_with_another() -> None:
    recipe = student(seed=2, epochs=5)
    assert [view_of_epoch(recipe, epoch) for epoch in range(5)] == [2, 0, 1, 2, 0]
    assert views_of_run(recipe) == [2, 0, 1]
    assert views_of_run(recipe, first_epoch=4) == [0]
