"""Folders of images of two classes, and the smallest recipes that train on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import training.auto_train
from tests.training.runs import Killed
from training.recipes.auto import Choice, choose_recipes
from training.recipes.network import NetworkRecipe


def write_images(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write `count` images of each of two classes, of `size` (width, height), below `folder`."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(level, 20, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def brief(*arguments: object, **options: bool | None) -> Choice:
    """The recipes of `choose_recipes` with a single epoch and the smallest network, not pretrained."""
    choice = choose_recipes(*arguments, **options)  # type: ignore[arg-type]
    recipes = []
    for recipe in choice.recipes:
        exits = (4,) if len(recipe.network.exits) == 1 else (2, 4)
        side = recipe.network.side and 32
        start = recipe.start if recipe.start is None or recipe.start.recipe else None
        network = NetworkRecipe(name="resnet10", width=4, exits=exits, side=side)
        train = recipe.train.model_copy(update={"epochs": 1, "progressive": None})
        recipes.append(
            recipe.model_copy(update={"network": network, "train": train, "start": start})
        )
    return Choice(tuple(recipes), choice.reasons)


def choose_briefly() -> None:
    training.auto_train.choose_recipes = brief  # type: ignore[attr-defined]


def killed(*_: object) -> None:
    raise Killed
