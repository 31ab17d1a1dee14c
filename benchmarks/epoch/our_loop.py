"""Our training loop on one pass over some images, with the teacher in every step and on cached views."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.epoch.plain_loop import CLASSES, MEAN, STD, WARM_UP_BATCHES, now, timed
from training.assemble import build_step
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset, Split
from training.distributed import SINGLE_PROCESS
from training.loop import Run, new_optimizer, train_epoch
from training.models.build import build_network
from training.models.multi_exit import MultiExit, Normalize
from training.recipes.schema import Recipe
from training.speed import compile_step, keep_freed_memory, use_tensor_cores
from training.teachers.cache import ViewCache
from training.teachers.cached_views import CachedViews
from training.teachers.classifier import NetworkClassifier
from training.teachers.key import TrainingImages, key_content

NOWHERE = Path("/nonexistent")
EXITS = [1, 2, 3, 4]


class OurLoop:
    """Our loop: images on the device, augmented there in batches, bf16, channels_last.

    With `online`, the teacher runs in every step.
    """

    online = True

    def __init__(
        self,
        arguments: argparse.Namespace,
        device: torch.device,
        images: Split,
        compiled: bool = False,
    ) -> None:
        recipe = _recipe(arguments)
        teacher = _fresh_network(arguments) if self.online else None
        data = Dataset("random", images, images, tuple(map(str, range(CLASSES))), MEAN, STD)
        step = build_step(recipe, data, teacher, NOWHERE, torch.from_numpy(images.labels))
        step = step.to(device).to(memory_format=torch.channels_last)
        if compiled:
            compile_step(step, device)
        split = DeviceDataset.of(images, device)
        self._run = Run(NOWHERE, recipe, step, split, split, device)
        self._optimizer = new_optimizer(self._run, 0)
        self._warm = False

    def seconds(self) -> float:
        """One pass over the images."""
        with self._tuned():
            if not self._warm:
                self._epoch()
                self._warm = True
            return timed(self._epoch, self._run.device)

    def split(self) -> dict[str, float]:
        """Median milliseconds of a batch in each part, with the device synchronised in between."""
        run, step = self._run, self._run.step
        parts: dict[str, list[float]] = {}

        def clocked(part: str, work: Callable[..., Any], *inputs: Any) -> Any:
            began = now(run.device)
            result = work(*inputs)
            parts.setdefault(part, []).append(now(run.device) - began)
            return result

        teach = step._run_teacher
        with self._tuned():
            step.train()
            step._run_teacher = lambda inputs: clocked("teacher", teach, inputs)  # type: ignore[method-assign]
            batches = run.train.shuffled(run.recipe.train.batch_size, run.recipe.data, 0, 0)
            for _ in range(len(run.train) // run.recipe.train.batch_size):
                images, batch = clocked("data", next, batches)
                loss = clocked("student forward", step, images, batch)
                parts["student forward"][-1] -= parts["teacher"][-1]
                self._optimizer.zero_grad()
                clocked("student backward", loss.backward)
                clocked("optimiser", self._optimizer.step)
        later = {part: spent[WARM_UP_BATCHES:] or spent for part, spent in parts.items()}
        return {part: round(1e3 * statistics.median(spent), 1) for part, spent in later.items()}

    def _epoch(self) -> None:
        train_epoch(self._run, self._optimizer, 0, lambda *_: None)

    @contextmanager
    def _tuned(self) -> Iterator[None]:
        """With the settings of our runs, which the plain loop does not have."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
        if self._run.device.type == "cuda":
            use_tensor_cores()
        else:
            keep_freed_memory()
        yield
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


class CachedLoop(OurLoop):
    """The same on one cached view, which a loop that `fills` computes and stores in every pass."""

    online = False

    def __init__(
        self,
        arguments: argparse.Namespace,
        device: torch.device,
        images: Split,
        place: Path,
        fills: bool = False,
    ) -> None:
        super().__init__(arguments, device, images)
        recipe, split = self._run.recipe, self._run.train
        teacher = NetworkClassifier(
            _fresh_network(arguments), Normalize(MEAN, STD), recipe.train.precision, device
        )
        count, height, width, _ = split.images.shape
        facts = TrainingImages(recipe.data, count, height, width)
        cache = ViewCache(place, key_content(facts, {}, len(EXITS), CLASSES))
        self._views = CachedViews(recipe, split, cache, lambda: teacher, SINGLE_PROCESS, print)
        self._fills = fills

    def _epoch(self) -> None:
        if self._fills:
            self._views.cache.path(0).unlink(missing_ok=True)
        view = self._views.load(0, None)
        train_epoch(self._run, self._optimizer, 0, lambda *_: None, view)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "benchmark",
            "data": {"name": "cifar100", "held_out": 1},
            "network": {"name": arguments.network, "width": arguments.width, "exits": EXITS},
            "objective": {"method": "oto"},
            "teacher": {"recipe": "fresh", "views": 1},
            "train": {"epochs": 1, "batch_size": arguments.batch, "learning_rate": 0.01},
        }
    )


def _fresh_network(arguments: argparse.Namespace) -> MultiExit:
    return build_network(arguments.network, arguments.width, CLASSES, EXITS).eval()
