"""Batches from a split held in device memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from training.data.augment import augment
from training.data.dataset import Split
from training.objectives.criterion import Batch
from training.recipes.schema import DataRecipe

# Limits of the batches that AutoAugment processes at once.
MAX_CHUNK_IMAGES = 4096
MAX_CHUNK_PIXELS = MAX_CHUNK_IMAGES * 64 * 64

# A view is drawn in chunks of this size, whatever the batch size. Another size draws other views, so a
# change needs another `FORMAT` in training/teachers/key.py; so does another seed.
VIEW_CHUNK_IMAGES = 1024
VIEW_CHUNK_PIXELS = VIEW_CHUNK_IMAGES * 64 * 64
# The seeds of views are far from those of epochs, (seed << 20) + epoch.
VIEW_SEED = 0x5EED_0000
DAMAGE_SEED = 0xDA3A_6E00


@dataclass(frozen=True)
class DeviceDataset:
    """A split on a device: images uint8 [N, H, W, 3], labels int64 [N]."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: Split, device: torch.device) -> DeviceDataset:
        """Copy `split` to `device`."""
        return cls(
            torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> DeviceDataset:
        """At most `count` samples, evenly spread, since splits may be sorted by class."""
        index = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()
        return DeviceDataset(self.images[index], self.labels[index])

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples without augmentation, in batches of `size`; the last one may be smaller."""
        yield from zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)

    def shuffled(
        self,
        size: int,
        recipe: DataRecipe,
        seed: int,
        epoch: int,
        share: slice = slice(None),
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Augmented batches of one epoch; an incomplete last one is dropped.

        The order and every random draw follow from (seed, epoch), so a resumed run gets the same data.
        Only `share` of every batch is yielded; the shares of all processes make up the batch.
        """
        generator = _epoch_generator(seed, epoch)
        complete = _complete_order(self.labels, size, generator)
        blank = self._blank(recipe)
        for chunk in torch.split(complete, size * self._batches_at_once(size, recipe)):
            images = augment(self.images[chunk], recipe, generator, blank)
            for batch, indices in zip(
                torch.split(images, size), torch.split(chunk, size), strict=True
            ):
                yield batch[share], Batch(self.labels[indices[share]], indices[share])

    def augmented(self, recipe: DataRecipe, view: int, *, damage_apart: bool = False) -> Tensor:
        """All images, augmented as in `view` (0-based), uint8 [N, H, W, 3] on the device.

        Every random draw follows from `view`, in the split's order. With `damage_apart` crops and mirroring
        are those of the recipe without degradation and compression.
        """
        generator = torch.Generator().manual_seed(VIEW_SEED + view)
        damage = torch.Generator().manual_seed(DAMAGE_SEED + view) if damage_apart else None
        _, height, width, _ = self.images.shape
        size = max(1, min(VIEW_CHUNK_IMAGES, VIEW_CHUNK_PIXELS // (height * width)))
        blank = self._blank(recipe)
        images = torch.empty_like(self.images)
        for source, target in zip(
            torch.split(self.images, size), torch.split(images, size), strict=True
        ):
            target.copy_(augment(source, recipe, generator, blank, damage))
        return images

    def _blank(self, recipe: DataRecipe) -> Tensor:
        """The colour of cutout's squares, uint8 [3]."""
        return self.mean_colour if recipe.cutout else self.images.new_zeros(3)

    @cached_property
    def mean_colour(self) -> Tensor:
        """The mean of all pixels, uint8 [3], on the device."""
        chunks = torch.split(self.images, 1024)
        total = torch.stack([chunk.sum((0, 1, 2), dtype=torch.int64) for chunk in chunks]).sum(0)
        pixels = self.images[..., 0].numel()
        return ((total + pixels // 2) // pixels).to(torch.uint8)

    def _batches_at_once(self, size: int, recipe: DataRecipe) -> int:
        """How many batches are augmented together; AutoAugment is faster on more images."""
        if recipe.autoaugment is None:
            return 1
        _, height, width, _ = self.images.shape
        return max(1, min(MAX_CHUNK_IMAGES, MAX_CHUNK_PIXELS // (height * width)) // size)


@dataclass(frozen=True)
class View:
    """One augmentation of a whole split, with the teacher's logits for exactly these pixels.

    Images uint8 [N, H, W, 3], labels int64 [N], logits float16 [K, N, C] of the teacher's K exits; all
    in the split's order, on one device.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor

    def shuffled(
        self, size: int, seed: int, epoch: int, share: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Batch]]:
        """The batches of one epoch, in the order that `DeviceDataset.shuffled` has; the last one is
        dropped if it is incomplete. Only `share` of every batch is yielded."""
        order = _complete_order(self.labels, size, _epoch_generator(seed, epoch))
        for batch in torch.split(order, size):
            indices = batch[share]
            logits = list(self.logits[:, indices].float())
            yield self.images[indices], Batch(self.labels[indices], indices, logits)


def _epoch_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 20) + epoch)


def _complete_order(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The samples' indices in random order, as many as fill batches of `size`, on the labels' device."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    return order[: len(labels) // size * size]
