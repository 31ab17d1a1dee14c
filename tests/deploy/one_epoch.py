"""The command `offramp` with one epoch in every recipe. Other tests train the recipes as they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from offramp.cli import main
from tests.deploy.hosts import ROOT
from training.recipes.auto import Choice
from training.recipes.schema import Recipe


def shortened(recipe: Recipe) -> Recipe:
    """`recipe` with one epoch."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 1})})


def command(folder: Path) -> Path:
    """The directory `folder`, new, with this module as its command `offramp`."""
    folder.mkdir()
    script = folder / "offramp"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m {__name__} "$@"\n'
    )
    script.chmod(0o755)
    return folder


def shorten_training() -> None:
    """Have `offramp train` use shortened recipes, shipped ones and those chosen for a folder."""
    import training.auto_train
    import training.recipes.files

    load, choose = training.recipes.files.load_recipe, training.auto_train.choose_recipes

    def choose_short(*arguments: Any, **options: Any) -> Choice:
        choice = choose(*arguments, **options)
        return Choice(tuple(shortened(recipe) for recipe in choice.recipes), choice.reasons)

    training.recipes.files.load_recipe = lambda source: shortened(load(source))
    training.auto_train.choose_recipes = choose_short  # type: ignore[attr-defined]


if __name__ == "__main__":
    if sys.argv[1] == "train":
        shorten_training()
    main()
