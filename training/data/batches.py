"""Batches from a split that lies whole on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.augment import crop_and_flip
from training.data.dataset import Split
from training.objectives.criterion import Batch
from training.recipe import DataRecipe


@dataclass(frozen=True)
class Resident:
    """A split on a device: images uint8 [N, H, W, 3], labels int64 [N]."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: Split, device: torch.device) -> Resident:
        """Copy `split` to `device`."""
        return cls(
            torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples as they are, in batches of `size`, the last one smaller."""
        yield from zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)

    def shuffled(
        self,
        size: int,
        recipe: DataRecipe,
        seed: int,
        epoch: int,
        share: slice = slice(None),
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Augmented batches of one epoch; the incomplete last one is left out.

        The order and every crop follow from (seed, epoch), so a resumed run sees the same data. Of
        every batch only `share` is given: the parts of several processes make up the same batch.
        """
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(len(self), generator=generator).to(self.images.device)
        for chosen in torch.split(order, size)[: len(self) // size]:
            images = crop_and_flip(self.images[chosen], recipe.padding, recipe.flip, generator)
            yield images[share], Batch(self.labels[chosen[share]], chosen[share])
