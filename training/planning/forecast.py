"""What training on images will take on this machine, before it starts."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.dataset import DatasetInfo
from training.planning.dry_run import DryRun, dry_run
from training.recipes.schema import Recipe
from training.report import clock
from training.teachers.cached_views import size_text

LOGIT_BYTES = 2  # of a view: float16


@dataclass(frozen=True)
class RunForecast:
    """The time of one run with its refit, and the size of the views of its teacher."""

    name: str
    seconds: float
    view_bytes: int


@dataclass(frozen=True)
class Forecast:
    """The runs, and the peak of memory: on a CPU that of the process, on a GPU that of the device."""

    runs: tuple[RunForecast, ...]
    memory_bytes: int
    device: str

    def __str__(self) -> str:
        parts = ", ".join(f"{run.name} {clock(run.seconds)}" for run in self.runs)
        views = sum(run.view_bytes for run in self.runs)
        return (
            f"forecast: about {clock(sum(run.seconds for run in self.runs))} on this {self.device} "
            f"({parts}), {size_text(self.memory_bytes)} of memory"
            + (f", {size_text(views)} of views on disk" if views else "")
        )


def forecast(
    recipes: Sequence[Recipe],
    info: DatasetInfo,
    *,
    earlier: Sequence[Recipe],
    runs: Path,
    device: str = "auto",
) -> Forecast:
    """Time two steps of every recipe on noise of the size of its images.

    `earlier` are the recipes of all runs that these need. Raises what `dry_run` raises.
    """
    by_name = {recipe.name: recipe for recipe in earlier}
    tried = {
        recipe.name: dry_run(recipe, runs=runs, device=device, info=info, earlier=by_name)
        for recipe in recipes
    }
    parts = tuple(_run_forecast(dry, tried, info) for dry in tried.values())
    images = max(_image_bytes(recipe, info) for recipe in recipes)
    first = next(iter(tried.values()))
    measured = max(dry.peak_memory_bytes or 0 for dry in tried.values())
    return Forecast(parts, (measured or _peak_memory()) + images, first.device)


def _run_forecast(dry: DryRun, tried: dict[str, DryRun], info: DatasetInfo) -> RunForecast:
    recipe = dry.recipe
    held_out, epochs = recipe.data.held_out, recipe.train.epochs
    count = info.train_images - held_out
    seconds = dry.seconds + epochs * held_out * dry.evaluation_image_s
    view_bytes = 0
    if recipe.teacher is not None and recipe.teacher.views is not None:
        views = min(recipe.teacher.views, epochs)
        view_bytes = views * count * info.classes * LOGIT_BYTES
        teacher_image_s = dry.teacher_image_s
        if recipe.teacher.recipe in tried:
            teacher_image_s = tried[recipe.teacher.recipe].evaluation_image_s
        seconds += views * count * teacher_image_s
    if recipe.refit:
        larger = info.train_images / count
        seconds += larger * (seconds - epochs * held_out * dry.evaluation_image_s)
        view_bytes += round(larger * view_bytes)
    return RunForecast(recipe.name, seconds, view_bytes)


def _image_bytes(recipe: Recipe, info: DatasetInfo) -> int:
    """The images in memory: as they were read, the two splits, and the view of an epoch."""
    views = recipe.teacher is not None and recipe.teacher.views is not None
    return (3 if views else 2) * info.train_images * info.side * info.side * 3


def _peak_memory() -> int:
    """The peak of this process's memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
