"""The views of a run: pixels drawn again in every epoch, the teacher's logits from the cache.

Teacher and student must see the same crop (Beyer et al. 2022, "Knowledge distillation: A good teacher
is patient and consistent"), so logits are cached for whole views: a view's pixels follow from its
number and the data recipe alone, and a student of any seed uses the same views.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from training.data.batches import DeviceDataset, View
from training.distributed import DistContext
from training.errors import CheckpointError
from training.recipes.schema import DataRecipe, Recipe
from training.teachers.cache import ViewCache
from training.teachers.classifier import Classifier

# Limits of the batches in which the teacher sees a view; fixed, so that every process count and every
# student get the same logits.
MAX_BATCH_IMAGES = 256
MAX_BATCH_PIXELS = MAX_BATCH_IMAGES * 64 * 64
MAX_LOGIT = torch.finfo(torch.float16).max


class FillProgress(Protocol):
    """Shows how a view is filled."""

    def filling(self, view: int, done: int, batches: int) -> None:
        """The teacher has seen `done` of `batches` batches of `view`."""
        ...

    def filled(self, view: int, seconds: float, left: int) -> None:
        """`view` is stored; this run still has to fill `left` views."""
        ...


@dataclass
class CachedViews:
    """The views that a run with `epochs` epochs trains on; those missing in `cache` are filled.

    `open_teacher` is called when the first view has to be filled.
    """

    recipe: Recipe
    train: DeviceDataset
    cache: ViewCache
    open_teacher: Callable[[], Classifier]
    dist: DistContext
    say: Callable[[str], None]
    _teacher: Classifier | None = field(default=None, init=False)

    def load(self, epoch: int, progress: FillProgress | None) -> View:
        """The view of `epoch` (0-based), filled if need be. Only the main process writes and reads files.

        Raises CheckpointError if the teacher's logits are not finite, and what opening the teacher and
        writing files raise.
        """
        view = view_of_epoch(self.recipe, epoch)
        images = self._images(view, self.recipe.data)
        device = images.device
        with self.cache.locked(view) if self.dist.is_main else nullcontext():
            stored = self.cache.read(view, self.say) if self.dist.is_main else None
            present = torch.tensor(int(stored is not None), device=device)
            if self.dist.from_main(present).item():
                logits = torch.empty(self.cache.shape, dtype=torch.float16, device=device)
                if stored is not None:
                    logits.copy_(stored)
                self.dist.from_main(logits)
            else:
                logits = self._fill(view, epoch, images, progress)
        return View(images, self.train.labels, logits)

    def missing(self, first_epoch: int = 0) -> list[int]:
        """The views without a file that the epochs from `first_epoch` on need, in their order."""
        return [
            v for v in views_of_run(self.recipe, first_epoch) if not self.cache.path(v).exists()
        ]

    def headline(self) -> str:
        """How many views the run needs, their size and place, and how many are there."""
        return describe(self.recipe, self.cache)

    def _images(self, view: int, recipe: DataRecipe) -> Tensor:
        assert self.recipe.teacher is not None
        return self.train.augmented(recipe, view, damage_apart=self.recipe.teacher.undamaged)

    def _fill(self, view: int, epoch: int, images: Tensor, progress: FillProgress | None) -> Tensor:
        """Compute and store the logits of `view`, float16 [K, N, C]; each process computes a share.

        `images` are those that the student sees.
        """
        started = time.perf_counter()
        if taught_on(self.recipe) != self.recipe.data:
            images = self._images(view, taught_on(self.recipe))
        if self._teacher is None:
            # New networks draw their weights; the student's draws must not depend on the cache.
            with torch.random.fork_rng(devices=[]):
                self._teacher = self.open_teacher()
        batches = torch.split(images, _batch_size(images))
        logits = torch.zeros(self.cache.shape, dtype=torch.float16, device=images.device)
        parts = torch.split(logits, _batch_size(images), dim=1)
        for number, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            if number % self.dist.world_size == self.dist.rank:
                part.copy_(self._teacher.logits(batch).clamp(-MAX_LOGIT, MAX_LOGIT))
            if progress is not None:
                progress.filling(view, number + 1, len(batches))
        self.dist.sum(logits)
        if not bool(logits.isfinite().all()):
            raise CheckpointError(
                f"the teacher of {self.recipe.name} gives logits that are not finite in view {view}."
            )
        if self.dist.is_main:
            self.cache.write(view, logits)
        if progress is not None:
            progress.filled(view, time.perf_counter() - started, len(self.missing(epoch)))
        return logits


def taught_on(recipe: Recipe) -> DataRecipe:
    """The images that the teacher sees."""
    assert recipe.teacher is not None
    return recipe.data.undamaged if recipe.teacher.undamaged else recipe.data


def view_of_epoch(recipe: Recipe, epoch: int) -> int:
    """The view of an epoch: each once, then from the beginning; another seed begins with another."""
    assert recipe.teacher is not None
    assert recipe.teacher.views is not None
    return (recipe.seed + epoch) % recipe.teacher.views


def views_of_run(recipe: Recipe, first_epoch: int = 0) -> list[int]:
    """The views of the epochs from `first_epoch` on, each once, in the order of their first use."""
    epochs = range(first_epoch, recipe.train.epochs)
    return list(dict.fromkeys(view_of_epoch(recipe, epoch) for epoch in epochs))


def describe(recipe: Recipe, cache: ViewCache) -> str:
    """As in "teacher's views: 24 of 34 MiB each, 824 MiB in runs/t/views/0123456789abcdef, 3 of them
    filled already"."""
    views = views_of_run(recipe)
    present = sum(cache.path(view).exists() for view in views)
    each, together = size_text(cache.view_bytes), size_text(len(views) * cache.view_bytes)
    return (
        f"teacher's views: {len(views)} of {each} each, {together} in {cache.directory}, "
        f"{present} of them filled already"
    )


def size_text(size: int) -> str:
    mib = size / 2**20
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.2f} MiB"


def _batch_size(images: Tensor) -> int:
    _, height, width, _ = images.shape
    return max(1, min(MAX_BATCH_IMAGES, MAX_BATCH_PIXELS // (height * width)))
