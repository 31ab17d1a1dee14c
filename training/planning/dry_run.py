"""A dry run: two steps on noise show whether a run starts, its memory and its time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from training.assemble import check_batch_size
from training.checkpoint import CONFIG, read_config
from training.data.batches import DeviceDataset
from training.data.dataset import DATASET_INFO, DatasetInfo
from training.distributed import choose_device
from training.errors import DivergedError, RecipeError
from training.evaluate import predict
from training.loop import Run, new_optimizer, train_epoch
from training.models.cost import count_parameters, network_cost
from training.planning.stand_ins import (
    NOWHERE,
    assemble,
    find_recipe,
    noise,
    noise_view,
    shrunk,
)
from training.recipes.schema import Recipe
from training.teachers.cached_views import describe, size_text, taught_on, views_of_run
from training.teachers.key import TrainingImages
from training.teachers.onnx_classifier import OnnxClassifier
from training.teachers.open_views import view_cache

TEACHER_IMAGES = 4


@dataclass(frozen=True)
class DryRun:
    """Results of a dry run.

    `macs` are the student's for one image with all exits; `criterion_parameters` are trained beside
    the student. `peak_memory_bytes` is measured on a GPU only. `step_s` and `preparation_step_s` are the
    times of the second step; the latter is 0 for a method without preparation. `evaluation_image_s` is the
    student's time for one image without gradients. `views` describes the
    teacher's views and their cache, if the recipe has any, and `teacher_image_s` is the time that its ONNX
    classifiers take for one image, 0 without any.
    """

    recipe: Recipe
    device: str
    parameters: int
    macs: int
    criterion_parameters: int
    teacher_parameters: int
    peak_memory_bytes: int | None
    steps_per_epoch: int
    preparation_epochs: int
    preparation_step_s: float
    step_s: float
    evaluation_image_s: float
    views: str | None = None
    teacher_image_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Estimated time of the whole run, without the evaluation after every epoch and without the
        time in which the teacher fills views."""
        preparation_s = self.preparation_epochs * self.preparation_step_s
        return self.steps_per_epoch * (preparation_s + self.recipe.train.epochs * self.step_s)

    def __str__(self) -> str:
        network, train = self.recipe.network, self.recipe.train
        memory = "not measured on a CPU"
        if self.peak_memory_bytes is not None:
            memory = f"{self.peak_memory_bytes / 2**30:.2f} GiB"
        epochs = f"{train.epochs} epochs"
        if self.preparation_epochs:
            epochs = (
                f"{self.preparation_epochs} epochs of preparation at "
                f"{self.preparation_step_s:.3f} s and {epochs}"
            )
        minutes, seconds = divmod(round(self.seconds), 60)
        views, unmeasured = "", "evaluation"
        if self.views is not None:
            views, unmeasured = f"{self.views}\n", "evaluation and filling views"
        if self.teacher_image_s:
            views += f"the teacher takes {1e3 * self.teacher_image_s:.3g} ms an image\n"
        return (
            f"{self.recipe.name}: dry run on {self.device} in batches of {train.batch_size}\n"
            f"student: {network.title}, {len(network.exits)} exits, "
            f"{self.parameters:,} parameters, {self.macs:,} MACs an image\n"
            f"parameters beside it: {self.criterion_parameters:,} trained, "
            f"{self.teacher_parameters:,} of the teacher\n"
            f"{views}"
            f"peak memory: {memory}\n"
            f"a step: {self.step_s:.3f} s; {epochs} of {self.steps_per_epoch} steps: about "
            f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} without {unmeasured}"
        )


def dry_run(
    recipe: Recipe,
    *,
    runs: Path = NOWHERE,
    device: str = "auto",
    shrink: int = 1,
    batch_size: int | None = None,
    info: DatasetInfo | None = None,
    earlier: Mapping[str, Recipe] | None = None,
) -> DryRun:
    """Take two steps of `recipe`, and two of its preparation if it has one; write nothing.

    The images are noise; teacher and start are new networks of the same shape. Of teachers with views only
    ONNX classifiers are run, on a few images. `runs` is where its views would be. To check many recipes
    quickly, `shrink` divides every network's width (down to 4) and `batch_size` replaces the recipe's.
    `info` is needed where the size of the data set is not published. Runs that `recipe` needs are looked
    up in `earlier`, in `runs`, and among the recipes that ship with Offramp.
    Raises RecipeError if the recipe cannot be run, DivergedError if a loss is not finite.
    """
    info = info or _dataset_info(recipe)
    earlier = earlier or {}
    kept = info.train_images - recipe.data.held_out
    if kept < 1:
        raise RecipeError(
            f"data.held_out {recipe.data.held_out} leaves none of the {info.train_images} training images."
        )
    check_batch_size(recipe, kept)
    views = _describe_views(recipe, info, runs, choose_device(device))
    recipe = recipe.model_copy(
        update={
            "network": shrunk(recipe.network, shrink),
            "train": recipe.train.model_copy(
                update={"batch_size": batch_size or recipe.train.batch_size}
            ),
        }
    )
    target = choose_device(device)
    torch.manual_seed(recipe.seed)
    if target.type == "cuda":
        torch.cuda.reset_peak_memory_stats(target)
    find = partial(find_recipe, runs=runs, earlier=earlier)
    step = assemble(recipe, info, shrink, find).to(target).to(memory_format=torch.channels_last)
    data = DeviceDataset.of(noise(recipe, info).train, target)
    run = Run(NOWHERE, recipe, step, data, data, target)
    preparation_step_s = _step_seconds(run, 0, info) if run.preparation else 0.0
    step_s = _step_seconds(run, run.preparation, info)
    parameters, macs = network_cost(recipe.network, info.side, info.classes)
    return DryRun(
        recipe=recipe,
        device=target.type,
        parameters=parameters,
        macs=macs,
        criterion_parameters=sum(p.numel() for p in step.criterion.parameters()),
        teacher_parameters=0 if step.teacher is None else count_parameters(step.teacher),
        peak_memory_bytes=(
            torch.cuda.max_memory_allocated(target) if target.type == "cuda" else None
        ),
        steps_per_epoch=kept // recipe.train.batch_size,
        preparation_epochs=run.preparation,
        preparation_step_s=preparation_step_s,
        step_s=step_s,
        evaluation_image_s=_evaluation_seconds(run) / len(data),
        views=views,
        teacher_image_s=_teacher_seconds(run, info),
    )


def _describe_views(
    recipe: Recipe, info: DatasetInfo, runs: Path, device: torch.device
) -> str | None:
    """The views that `recipe` trains on, as far as they are known before its data is read."""
    if recipe.teacher is None or recipe.teacher.views is None:
        return None
    count = info.train_images - recipe.data.held_out
    images = TrainingImages(taught_on(recipe), count, info.side, info.side)
    config = None
    if recipe.teacher.recipe is not None:
        directory = runs / recipe.teacher.recipe
        if not (directory / CONFIG).is_file():
            return (
                f"teacher's views: {min(recipe.teacher.views, recipe.train.epochs)}, none are there: "
                f"{recipe.teacher.recipe} is not trained yet"
            )
        config = read_config(directory)
    cache = view_cache(recipe, images, info.classes, config, runs, device)
    if recipe.data.name in DATASET_INFO:
        return describe(recipe, cache)
    # The key depends on the images, which are not read here.
    views = len(views_of_run(recipe))
    return (
        f"teacher's views: {views} of {size_text(cache.view_bytes)} each, "
        f"{size_text(views * cache.view_bytes)}; how many of them are filled already is known when the "
        "images are read"
    )


def _dataset_info(recipe: Recipe) -> DatasetInfo:
    info = DATASET_INFO.get(recipe.data.name)
    if info is None:
        raise RecipeError(
            f"{recipe.name} has no dry run: the size of data set {recipe.data.name} is unknown "
            "before it is read."
        )
    return info


def _evaluation_seconds(run: Run) -> float:
    """Seconds for the logits of all images without gradients."""
    started = time.perf_counter()
    predict(run.step.student, run.step.normalize, run.train)
    return time.perf_counter() - started


def _teacher_seconds(run: Run, info: DatasetInfo) -> float:
    """Seconds that the ONNX classifiers which teach take for one image; 0 without any."""
    teacher = run.recipe.teacher
    if teacher is None or teacher.onnx is None:
        return 0.0
    classifier = OnnxClassifier(teacher, info.classes, run.device)
    images = run.train.images[:TEACHER_IMAGES]
    classifier.logits(images)
    started = time.perf_counter()
    classifier.logits(images)
    return (time.perf_counter() - started) / len(images)


def _step_seconds(run: Run, epoch: int, info: DatasetInfo) -> float:
    """Seconds of the last step of `epoch`."""
    ends = []

    def record_time(done: int, steps: int) -> None:
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        ends.append(time.perf_counter())

    teacher = run.recipe.teacher
    view = noise_view(run, info.classes) if teacher and teacher.views else None
    loss = train_epoch(run, new_optimizer(run, epoch), epoch, record_time, view)
    if not math.isfinite(loss):
        raise DivergedError(f"{run.recipe.name}: the loss of a dry run is {loss}.")
    return ends[-1] - ends[-2]
