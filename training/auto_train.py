"""From a folder of pictures to a trained network, with recipes chosen on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from training.checkpoint import CONFIG, CheckpointConfig, read_config
from training.data.survey import survey
from training.distributed import DistContext
from training.errors import RecipeError
from training.recipes.auto import choose_recipes
from training.recipes.files import load_recipe, write_recipe
from training.recipes.schema import Recipe
from training.session import check_resumable, run_recipe


def train_folder(
    folder: Path,
    *,
    runs: Path,
    device: str = "auto",
    resume: bool = False,
    compiled: bool = False,
    from_scratch: bool = False,
    teacher: bool = False,
    say: Callable[[str], None] = print,
) -> CheckpointConfig:
    """Choose recipes for the pictures in `folder`, write them to `runs`, and train them in order.

    The last one's run, `runs`/NAME, is named after the folder; its recipe is `runs`/NAME.toml, written
    when its run starts. A teacher that is trained already is used as it is. Of several processes the
    first alone speaks. Raises what `run_recipe` raises, before anything is written where that can be
    known, and RecipeError if another recipe is in the place of a chosen one.
    """
    processes = DistContext.current()
    if not processes.first:
        say = _silent
    found = survey(folder)
    whole = folder.resolve()
    name = run_name(whole.name)
    choice = choose_recipes(
        name, str(whole), found.counts, found.side, from_scratch=from_scratch, teacher=teacher
    )
    for reason in choice.reasons:
        say(f"- {reason}")
    *_, last = choice.recipes
    ahead = [r for r in choice.recipes if r is last or not _is_trained(runs / r.name, r)]
    for recipe in ahead:
        check_resumable(runs / recipe.name, recipe, resume)
        _refuse_to_replace(_place(runs, recipe), recipe)
    with processes.first_alone():
        for recipe in ahead:
            _fetch(recipe)

    def write(recipe: Recipe) -> None:
        path = _place(runs, recipe)
        write_recipe(recipe, path, [f"Chosen for {len(found.counts)} classes:", *choice.reasons])
        say(f"recipe: {path}")

    configs = [
        run_recipe(
            recipe,
            runs=runs,
            data_root=folder,
            device=device,
            resume=resume,
            compiled=compiled,
            say=say,
            on_start=partial(write, recipe),
        )
        for recipe in ahead
    ]
    return configs[-1]


def run_name(folder: str) -> str:
    """A recipe's name for a folder called `folder`: "My Photos" gives "my-photos"."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.lower()).strip("-._")
    return name or "pictures"


def _place(runs: Path, recipe: Recipe) -> Path:
    return runs / f"{recipe.name}.toml"


def _is_trained(directory: Path, recipe: Recipe) -> bool:
    return (directory / CONFIG).is_file() and read_config(directory).recipe == recipe


def _refuse_to_replace(path: Path, recipe: Recipe) -> None:
    if path.exists() and load_recipe(str(path)) != recipe:
        raise RecipeError(
            f"{path} holds another recipe than is chosen now: train that one with "
            f"`offramp train {path}`, or move it away."
        )


def _silent(_: str) -> None:
    """What the other processes say."""


def _fetch(recipe: Recipe) -> None:
    """Have the weights `recipe` starts from at hand, or fail now."""
    if recipe.start is not None and recipe.start.weights is not None:
        from training.models.pretrained import read_weights

        read_weights(recipe.network.name, recipe.start.weights)
