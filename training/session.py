"""A training run from recipe to checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from training.assemble import build_step, load_teacher, use_statistics
from training.checkpoint import (
    CONFIG,
    RESUME,
    CheckpointConfig,
    resume_state,
    save_checkpoint,
)
from training.data.batches import Resident
from training.data.dataset import Dataset, hold_out, load_dataset
from training.errors import CheckpointError, RecipeError
from training.evaluate import accuracies, predict
from training.loop import Run, train
from training.models.cost import count_parameters
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
    begin = first_epoch(directory, recipe, resume)
    target = choose_device(device)
    dataset = load_dataset(recipe.data, data_root, download)
    teacher, teacher_config = load_teacher(recipe, runs)
    dataset = use_statistics(recipe, dataset, teacher_config, runs)

    torch.manual_seed(recipe.seed)
    train_split, held_out = _resident_splits(recipe, dataset, target)
    step = build_step(recipe, dataset, teacher, runs, len(train_split))
    directory.mkdir(parents=True, exist_ok=True)
    step = step.to(target).to(memory_format=torch.channels_last)
    run = Run(directory, recipe, step, train_split, held_out, target)
    network, normalize = step.student, step.normalize
    say(
        f"{recipe.name}: {recipe.network.title}, {network.exits} exits, "
        f"{count_parameters(network) / 1e6:.2f} M parameters, {len(train_split)} images on {target}"
    )
    with Report(directory, run.epochs, begin) as report:
        train(run, report, begin)

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


def first_epoch(directory: Path, recipe: Recipe, resume: bool) -> int:
    """The 0-based epoch at which a run of `recipe` in `directory` would begin.

    Raises CheckpointError if it may not.
    """
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
