"""A small teacher of the digits, and students that learn from its views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from training.assemble import load_teacher, use_statistics
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset, hold_out
from training.data.load import load_dataset
from training.distributed import SINGLE_PROCESS
from training.recipes.schema import Recipe
from training.run import run_recipe
from training.teachers.cached_views import CachedViews
from training.teachers.open_views import open_views

CPU = torch.device("cpu")
DATA: dict[str, object] = {"name": "digits", "held_out": 1150, "padding": 1, "flip": False}
NETWORK: dict[str, object] = {"name": "resnet10", "width": 4}
TRAIN: dict[str, object] = {"epochs": 2, "batch_size": 64, "precision": "fp32"}


def teacher(seed: int = 0, data: dict[str, object] | None = None, **train: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "teacher",
            "seed": seed,
            "data": {**DATA, **(data or {})},
            "network": NETWORK,
            "objective": {"method": "cross_entropy"},
            "train": {**TRAIN, **train},
        }
    )


def student(
    method: str = "oto",
    *,
    name: str = "student",
    seed: int = 0,
    exits: tuple[int, ...] = (1, 2, 3, 4),
    taught_by: dict[str, object] | None = None,
    data: dict[str, object] | None = None,
    **train: object,
) -> Recipe:
    return Recipe.model_validate(
        {
            "name": name,
            "seed": seed,
            "data": {**DATA, **(data or {})},
            "network": {**NETWORK, "exits": exits},
            "objective": {"method": method, "temperature": 3.0, "alpha": 0.5},
            "teacher": taught_by or {"recipe": "teacher", "views": 3},
            "train": {**TRAIN, **train},
        }
    )


def run(
    place: Path,
    recipe: Recipe,
    *,
    resume: bool = False,
    compiled: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    run_recipe(
        recipe,
        runs=place,
        data_root=place,
        device="cpu",
        resume=resume,
        compiled=compiled,
        say=say,
    )


def view_files(place: Path) -> list[Path]:
    """The files of all caches below `place`."""
    return sorted(place.rglob("view-*.safetensors"))


def assemble(place: Path, recipe: Recipe) -> tuple[Dataset, DeviceDataset, CachedViews | None]:
    """The data of `recipe`, its training split and its views."""
    dataset = load_dataset(recipe.data, place)
    _, config = load_teacher(recipe, dataset, place)
    dataset = use_statistics(recipe, dataset, config, place)
    kept, _ = hold_out(dataset.train.labels, recipe.data.held_out, recipe.data.held_out_seed)
    train = DeviceDataset.of(dataset.train.take(kept), CPU)
    views = open_views(recipe, dataset, config, train, place, SINGLE_PROCESS, lambda _: None)
    return dataset, train, views
