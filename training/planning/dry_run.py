"""A dry run: two steps on noise show whether a run starts, its memory and its time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.assemble import build_step
from training.checkpoint import CONFIG, read_config
from training.data.batches import DeviceDataset, View
from training.data.dataset import DATASET_INFO, Dataset, DatasetInfo, Split
from training.distributed import choose_device
from training.errors import DivergedError, RecipeError
from training.evaluate import predict
from training.loop import Run, new_optimizer, train_epoch
from training.models.build import network_from_recipe
from training.models.cost import count_parameters, network_cost
from training.models.multi_exit import MultiExit, Normalize
from training.recipes.files import load_recipe
from training.recipes.network import NetworkRecipe
from training.recipes.schema import Recipe, StartRecipe
from training.step import Step
from training.teachers.cached_views import describe, taught_on
from training.teachers.key import TrainingImages
from training.teachers.onnx_classifier import OnnxClassifier
from training.teachers.open_views import view_cache

STEPS = 2
TEACHER_IMAGES = 4
NOWHERE = Path("/nonexistent")


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
    up in `earlier` before the recipes by name.
    Raises RecipeError if the recipe cannot be assembled, DivergedError if a loss is not finite.
    """
    info = info or _dataset_info(recipe)
    earlier = earlier or {}
    views = _describe_views(recipe, info, runs, choose_device(device))
    recipe = recipe.model_copy(
        update={
            "network": _shrunk(recipe.network, shrink),
            "train": recipe.train.model_copy(
                update={"batch_size": batch_size or recipe.train.batch_size}
            ),
        }
    )
    target = choose_device(device)
    torch.manual_seed(recipe.seed)
    if target.type == "cuda":
        torch.cuda.reset_peak_memory_stats(target)
    step = _assemble(recipe, info, shrink, earlier).to(target).to(memory_format=torch.channels_last)
    data = DeviceDataset.of(_noise(recipe, info).train, target)
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
        steps_per_epoch=(info.train_images - recipe.data.held_out) // recipe.train.batch_size,
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
    return describe(recipe, view_cache(recipe, images, info.classes, config, runs, device))


def _dataset_info(recipe: Recipe) -> DatasetInfo:
    info = DATASET_INFO.get(recipe.data.name)
    if info is None:
        raise RecipeError(
            f"{recipe.name} has no dry run: the size of data set {recipe.data.name} is unknown "
            "before it is read."
        )
    return info


def _shrunk(network: NetworkRecipe, shrink: int) -> NetworkRecipe:
    if network.width is None:  # only the named CIFAR networks have a width
        return network
    return network.model_copy(update={"width": max(4, network.width // shrink)})


def _assemble(
    recipe: Recipe, info: DatasetInfo, shrink: int, earlier: Mapping[str, Recipe]
) -> Step:
    """The step, with new networks where a run would load earlier ones."""
    noise = _noise(recipe, info)
    images = Normalize(noise.mean, noise.std)(torch.from_numpy(noise.train.images[:8]))
    teacher = None
    if recipe.teacher is not None and recipe.teacher.views is None:
        assert recipe.teacher.recipe is not None
        network = _shrunk(_find(recipe.teacher.recipe, earlier).network, shrink)
        teacher = network_from_recipe(network, info.classes)
        _give_statistics(teacher, images)
    without_start = recipe.model_copy(update={"start": None})
    labels = torch.arange(info.train_images - recipe.data.held_out) % info.classes
    step = build_step(without_start, noise, teacher, NOWHERE, labels)
    if recipe.start is not None and recipe.start.frozen:
        _give_statistics(step.student, images)
        _freeze(step.student, recipe.start, earlier)
    return step


def _find(name: str, earlier: Mapping[str, Recipe]) -> Recipe:
    return earlier[name] if name in earlier else load_recipe(name)


@torch.no_grad()
def _give_statistics(network: MultiExit, images: Tensor) -> None:
    """Set the batch norm statistics to those of `images`.

    Without them a deep new network overflows in eval mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches, here one
    network.train()(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _freeze(student: MultiExit, start: StartRecipe, earlier: Mapping[str, Recipe]) -> None:
    exits = () if start.recipe is None else _find(start.recipe, earlier).network.exits
    shared = [k for k, stage in enumerate(student.exit_stages) if stage in exits]
    student.freeze([student.stages, *(student.heads[k] for k in shared)])


def _noise(recipe: Recipe, info: DatasetInfo) -> Dataset:
    """Enough images for the steps, with labels that cycle through the classes."""
    generator = np.random.default_rng(recipe.seed)
    count = STEPS * recipe.train.batch_size
    size = (count, info.side, info.side, 3)
    images = generator.integers(0, 256, size, dtype=np.uint8)
    split = Split(images, np.arange(count, dtype=np.int64) % info.classes)
    classes = tuple(str(label) for label in range(info.classes))
    half = (0.5, 0.5, 0.5)
    return Dataset(recipe.data.name, split, split, classes, half, half)


def _noise_view(run: Run, classes: int) -> View:
    """The images with random logits of a teacher that has the student's exits."""
    images, labels = run.train.images, run.train.labels
    shape = (len(run.recipe.network.exits), len(labels), classes)
    return View(images, labels, torch.randn(shape).half().to(images.device))


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
    view = _noise_view(run, info.classes) if teacher and teacher.views else None
    loss = train_epoch(run, new_optimizer(run, epoch), epoch, record_time, view)
    if not math.isfinite(loss):
        raise DivergedError(f"{run.recipe.name}: the loss of a dry run is {loss}.")
    return ends[-1] - ends[-2]
