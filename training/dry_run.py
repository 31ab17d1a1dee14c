"""A run in two steps on generated images: does it start, what does it take, how long will it be?"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.assemble import build_step
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset, Split
from training.data.shapes import SHAPES, Shape
from training.distributed import choose_device
from training.errors import DivergedError, RecipeError
from training.loop import Run, new_optimizer, train_epoch
from training.models.build import network_from_recipe
from training.models.cost import count_parameters, network_cost
from training.models.multi_exit import MultiExit, Normalize
from training.recipes.files import load_recipe
from training.recipes.network import NetworkRecipe
from training.recipes.schema import Recipe, StartRecipe
from training.step import Step

STEPS = 2
NOWHERE = Path("/nonexistent")


@dataclass(frozen=True)
class Rehearsal:
    """What two steps showed. `macs` are the student's for one image with all exits, `learnt` counts the
    parameters trained beside it, `peak_memory` is in bytes and known on a GPU alone. The second of the
    two steps is timed: `preparing` those of a method's preparation, if it has one."""

    recipe: Recipe
    device: str
    parameters: int
    macs: int
    learnt: int
    teacher_parameters: int
    peak_memory: int | None
    steps_per_epoch: int
    preparation: int
    preparing: float
    step: float

    @property
    def seconds(self) -> float:
        """Forecast for the whole run, without the evaluation after every epoch."""
        each = self.preparation * self.preparing + self.recipe.train.epochs * self.step
        return self.steps_per_epoch * each

    def __str__(self) -> str:
        network, train = self.recipe.network, self.recipe.train
        memory = "not known on a CPU"
        if self.peak_memory is not None:
            memory = f"{self.peak_memory / 2**30:.2f} GiB"
        epochs = f"{train.epochs} epochs"
        if self.preparation:
            epochs = (
                f"{self.preparation} epochs of preparation at {self.preparing:.3f} s and {epochs}"
            )
        minutes, seconds = divmod(round(self.seconds), 60)
        return (
            f"{self.recipe.name}: dry run on {self.device} in batches of {train.batch_size}\n"
            f"student: {network.title}, {len(network.exits)} exits, "
            f"{self.parameters:,} parameters, {self.macs:,} MACs an image\n"
            f"beside it: {self.learnt:,} parameters that learn, a teacher of "
            f"{self.teacher_parameters:,}\n"
            f"peak memory: {memory}\n"
            f"a step: {self.step:.3f} s; {epochs} of {self.steps_per_epoch} steps: about "
            f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} without evaluation"
        )


def dry_run(
    recipe: Recipe, *, device: str = "auto", shrink: int = 1, batch_size: int | None = None
) -> Rehearsal:
    """Take `recipe` through two steps, and two of its preparation if it has one; write nothing.

    The images are noise, teacher and start fresh networks of the right shape. With `shrink` every
    network's width is divided by it (down to 4), with `batch_size` the recipe's replaced: so that
    many recipes can be checked in little time. Raises RecipeError if the recipe cannot be assembled
    and DivergedError if a loss is not finite.
    """
    recipe = recipe.model_copy(
        update={
            "network": _shrunk(recipe.network, shrink),
            "train": recipe.train.model_copy(
                update={"batch_size": batch_size or recipe.train.batch_size}
            ),
        }
    )
    shape = _shape(recipe)
    target = choose_device(device)
    torch.manual_seed(recipe.seed)
    if target.type == "cuda":
        torch.cuda.reset_peak_memory_stats(target)
    step = _assemble(recipe, shape, shrink).to(target).to(memory_format=torch.channels_last)
    data = DeviceDataset.of(_noise(recipe, shape).train, target)
    run = Run(NOWHERE, recipe, step, data, data, target)
    preparing = _timed(run, 0) if run.preparation else 0.0
    timed = _timed(run, run.preparation)
    parameters, macs = network_cost(recipe.network, shape.side, shape.classes)
    return Rehearsal(
        recipe=recipe,
        device=target.type,
        parameters=parameters,
        macs=macs,
        learnt=sum(p.numel() for p in step.criterion.parameters()),
        teacher_parameters=0 if step.teacher is None else count_parameters(step.teacher),
        peak_memory=torch.cuda.max_memory_allocated(target) if target.type == "cuda" else None,
        steps_per_epoch=(shape.train - recipe.data.held_out) // recipe.train.batch_size,
        preparation=run.preparation,
        preparing=preparing,
        step=timed,
    )


def _shape(recipe: Recipe) -> Shape:
    shape = SHAPES.get(recipe.data.name)
    if shape is None:
        raise RecipeError(
            f"{recipe.name} cannot be run dry: of data set {recipe.data.name} nothing is known "
            "before it is read."
        )
    return shape


def _shrunk(network: NetworkRecipe, shrink: int) -> NetworkRecipe:
    if network.width is None:  # only the named CIFAR networks have a width
        return network
    return network.model_copy(update={"width": max(4, network.width // shrink)})


def _assemble(recipe: Recipe, shape: Shape, shrink: int) -> Step:
    """The step, with fresh networks where a run would load earlier ones."""
    noise = _noise(recipe, shape)
    images = Normalize(noise.mean, noise.std)(torch.from_numpy(noise.train.images[:8]))
    teacher = None
    if recipe.teacher is not None:
        network = _shrunk(load_recipe(recipe.teacher.recipe).network, shrink)
        teacher = network_from_recipe(network, shape.classes)
        _give_statistics(teacher, images)
    fresh = recipe.model_copy(update={"start": None})
    labels = torch.arange(shape.train - recipe.data.held_out) % shape.classes
    step = build_step(fresh, noise, teacher, NOWHERE, labels)
    if recipe.start is not None and recipe.start.frozen:
        _give_statistics(step.student, images)
        _freeze(step.student, recipe.start)
    return step


@torch.no_grad()
def _give_statistics(network: MultiExit, images: Tensor) -> None:
    """Let batch norm see `images` once: without, a deep fresh network in eval mode overflows."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of all batches, of which there is one
    network.train()(images)
    network.eval()
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def _freeze(student: MultiExit, start: StartRecipe) -> None:
    earlier = () if start.recipe is None else load_recipe(start.recipe).network.exits
    shared = [k for k, stage in enumerate(student.exit_stages) if stage in earlier]
    student.freeze([student.stages, *(student.heads[k] for k in shared)])


def _noise(recipe: Recipe, shape: Shape) -> Dataset:
    """Images enough for the steps, under every label that fits."""
    generator = np.random.default_rng(recipe.seed)
    count = STEPS * recipe.train.batch_size
    size = (count, shape.side, shape.side, 3)
    images = generator.integers(0, 256, size, dtype=np.uint8)
    split = Split(images, np.arange(count, dtype=np.int64) % shape.classes)
    classes = tuple(str(label) for label in range(shape.classes))
    half = (0.5, 0.5, 0.5)
    return Dataset(recipe.data.name, split, split, classes, half, half)


def _timed(run: Run, epoch: int) -> float:
    """Seconds of the last of the steps of `epoch`."""
    ends = []

    def note(done: int, steps: int) -> None:
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        ends.append(time.perf_counter())

    loss = train_epoch(run, new_optimizer(run, epoch), epoch, note)
    if not math.isfinite(loss):
        raise DivergedError(f"{run.recipe.name}: the loss of a dry run is {loss}.")
    return ends[-1] - ends[-2]
