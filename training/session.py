"""A training run from recipe to checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from training.checkpoint import (
    CONFIG,
    RESUME,
    CheckpointConfig,
    load_checkpoint,
    resume_state,
    save_checkpoint,
)
from training.data.batches import Resident
from training.data.dataset import Dataset, hold_out, load_dataset
from training.errors import CheckpointError, RecipeError
from training.evaluate import accuracies, predict
from training.loop import Run, train
from training.models.multi_exit import MultiExit, Normalize, build_network
from training.recipe import Recipe
from training.report import Report


def run_recipe(
    recipe: Recipe,
    *,
    runs: Path,
    data_root: Path,
    device: str = "auto",
    download: bool = False,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> CheckpointConfig:
    """Train `recipe` in directory `runs`/NAME and write its checkpoint there.

    A new run starts unless `resume`. Raises RecipeError, DataError, CheckpointError or DivergedError;
    nothing of an earlier run is overwritten unless it is resumed.
    """
    directory = runs / recipe.name
    first_epoch = _first_epoch(directory, recipe, resume)
    target = choose_device(device)
    dataset = load_dataset(recipe.data.name, data_root, download)
    teacher, teacher_config = _load_teacher(recipe, runs, target)
    directory.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(recipe.seed)
    network = build_network(
        recipe.network.name, recipe.network.width, len(dataset.classes), recipe.network.exits
    )
    network = network.to(target).to(memory_format=torch.channels_last)
    normalize = Normalize(dataset.mean, dataset.std).to(target)
    train_split, held_out = _resident_splits(recipe, dataset, target)
    run = Run(directory, recipe, network, teacher, normalize, train_split, held_out, target)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    say(
        f"{recipe.name}: {recipe.network.name} of width {recipe.network.width}, {network.exits} exits, "
        f"{parameters:.2f} M parameters, {len(train_split)} images on {target}"
    )
    with Report(directory, recipe.train.epochs, first_epoch) as report:
        train(run, report, first_epoch)

    test = Resident.of(dataset.test, target)
    config = CheckpointConfig(
        recipe=recipe,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        image_size=(dataset.train.images.shape[1], dataset.train.images.shape[2]),
        teacher_test=teacher_config.test if teacher_config else None,
        held_out=report.history[-1].held_out,
        test=accuracies(predict(network, normalize, test), test.labels),
        seconds=round(sum(metrics.seconds for metrics in report.history), 1),
        tools={"python": platform.python_version(), "torch": torch.__version__},
    )
    save_checkpoint(directory, network, config)
    (directory / RESUME).unlink()
    return config


def choose_device(name: str) -> torch.device:
    """The torch device for "auto" (a GPU if there is one), "cpu" or "cuda"."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda was asked for, but torch sees no GPU.")
    return torch.device(name)


def _first_epoch(directory: Path, recipe: Recipe, resume: bool) -> int:
    if (directory / CONFIG).is_file():
        raise CheckpointError(f"{directory} holds a finished run; move it away to train again.")
    state = resume_state(directory)
    if state is None:
        return 0
    done: int = state["epochs_done"]
    if not resume:
        raise CheckpointError(
            f"{directory} holds a run stopped after epoch {done} of {recipe.train.epochs}: "
            "add --resume to go on, or move it away."
        )
    if Recipe.model_validate(state["recipe"]) != recipe:
        raise CheckpointError(
            f"{directory} was begun with another recipe; move it away to train anew."
        )
    return done


def _load_teacher(
    recipe: Recipe, runs: Path, device: torch.device
) -> tuple[MultiExit | None, CheckpointConfig | None]:
    if recipe.teacher is None:
        return None, None
    name = recipe.teacher.recipe
    if not (runs / name / CONFIG).is_file():
        raise RecipeError(
            f"the teacher of {recipe.name} is not trained yet: run `offramp train {name}` first."
        )
    teacher, config = load_checkpoint(runs / name)
    theirs, ours = config.recipe.data, recipe.data
    if (theirs.name, theirs.held_out, theirs.held_out_seed) != (
        ours.name,
        ours.held_out,
        ours.held_out_seed,
    ):
        raise RecipeError(
            f"teacher {name} was trained on another data set or held-out split than {recipe.name} asks for."
        )
    if recipe.objective.name == "oto" and teacher.exits != len(recipe.network.exits):
        raise RecipeError(
            f"oto pairs exits one to one, but teacher {name} has {teacher.exits} exits "
            f"and {recipe.name} {len(recipe.network.exits)}."
        )
    return teacher.to(device).to(memory_format=torch.channels_last), config


def _resident_splits(
    recipe: Recipe, dataset: Dataset, device: torch.device
) -> tuple[Resident, Resident]:
    kept, held_out = hold_out(dataset.train.labels, recipe.data.held_out, recipe.data.held_out_seed)
    if len(kept) < recipe.train.batch_size:
        raise RecipeError(
            f"train.batch_size {recipe.train.batch_size} is larger than the {len(kept)} training images."
        )
    return (
        Resident.of(dataset.train.take(kept), device),
        Resident.of(dataset.train.take(held_out), device),
    )
