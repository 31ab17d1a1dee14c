"""What stands in for the images and the earlier runs of a recipe in a dry run: noise, and new networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.assemble import build_step
from training.checkpoint import CONFIG, read_config
from training.data.batches import View
from training.data.dataset import Dataset, DatasetInfo, Split
from training.loop import Run
from training.models.build import network_from_recipe
from training.models.multi_exit import MultiExit, Normalize
from training.recipes.files import load_recipe
from training.recipes.network import NetworkRecipe
from training.recipes.schema import Recipe, StartRecipe
from training.step import Step

STEPS = 2
NOWHERE = Path("/nonexistent")


def shrunk(network: NetworkRecipe, shrink: int) -> NetworkRecipe:
    """`network` with its width divided by `shrink`, down to 4."""
    if network.width is None:  # only the named CIFAR networks have a width
        return network
    return network.model_copy(update={"width": max(4, network.width // shrink)})


def assemble(
    recipe: Recipe,
    info: DatasetInfo,
    shrink: int,
    find: Callable[[str], Recipe],
) -> Step:
    """The step, with new networks where a run would load earlier ones; `find` has the recipe of one by name.

    Raises RecipeError if it cannot be assembled.
    """
    pixels = noise(recipe, info)
    images = Normalize(pixels.mean, pixels.std)(torch.from_numpy(pixels.train.images[:8]))
    teacher = None
    if recipe.teacher is not None and recipe.teacher.views is None:
        assert recipe.teacher.recipe is not None
        network = shrunk(find(recipe.teacher.recipe).network, shrink)
        teacher = network_from_recipe(network, info.classes)
        _give_statistics(teacher, images)
    without_start = recipe.model_copy(update={"start": None})
    labels = torch.arange(info.train_images - recipe.data.held_out) % info.classes
    step = build_step(without_start, pixels, teacher, NOWHERE, labels)
    if recipe.start is not None and recipe.start.frozen:
        _give_statistics(step.student, images)
        _freeze(step.student, recipe.start, find)
    return step


def find_recipe(name: str, runs: Path, earlier: Mapping[str, Recipe]) -> Recipe:
    """The recipe of the run `name`: in `earlier`, else that of the finished run in `runs`, else that in
    `runs`/NAME.toml, else the one that ships with Offramp.

    Raises RecipeError if there is none, and CheckpointError for a damaged run.
    """
    if name in earlier:
        return earlier[name]
    if (runs / name / CONFIG).is_file():
        return read_config(runs / name).recipe
    file = runs / f"{name}.toml"
    return load_recipe(str(file) if file.is_file() else name)


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


def _freeze(student: MultiExit, start: StartRecipe, find: Callable[[str], Recipe]) -> None:
    exits = () if start.recipe is None else find(start.recipe).network.exits
    shared = [k for k, stage in enumerate(student.exit_stages) if stage in exits]
    student.freeze([student.stages, *(student.heads[k] for k in shared)])


def noise(recipe: Recipe, info: DatasetInfo) -> Dataset:
    """Enough images for the steps, with labels that cycle through the classes."""
    generator = np.random.default_rng(recipe.seed)
    count = STEPS * recipe.train.batch_size
    size = (count, info.side, info.side, 3)
    images = generator.integers(0, 256, size, dtype=np.uint8)
    split = Split(images, np.arange(count, dtype=np.int64) % info.classes)
    classes = tuple(str(label) for label in range(info.classes))
    half = (0.5, 0.5, 0.5)
    return Dataset(recipe.data.name, split, split, classes, half, half)


def noise_view(run: Run, classes: int) -> View:
    """The images with random logits of a teacher that has the student's exits."""
    images, labels = run.train.images, run.train.labels
    shape = (len(run.recipe.network.exits), len(labels), classes)
    return View(images, labels, torch.randn(shape).half().to(images.device))
