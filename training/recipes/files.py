"""Recipes as TOML, and every recipe by its name."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import tomli_w

from offramp.files import replacing
from training.errors import RecipeError
from training.recipes.schema import Recipe, validate_recipe
from training.recipes.shipped import toml_names
from training.recipes.table_recipes import find_table_recipe

# Of `offramp train --runs`.
DEFAULT_RUNS = Path("runs")
FOLDER = files("training") / "recipes"


def load_recipe(source: str) -> Recipe:
    """The recipe in the TOML file `source`, or the one of that name that ships with Offramp.

    Shipped are the files of training/recipes, as in `digits-oto`, and the recipes composed from its
    tables, as in `cifar100/vgg13-vgg8/oto` (training/recipes/table_recipes.py). Raises RecipeError, in
    one sentence, if there is none or it is not valid.
    """
    if Path(source).suffix == ".toml":
        try:
            text = Path(source).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe {source} cannot be read: {error}.") from error
        return _parse(source, text)
    if source in recipe_file_names():
        return _parse(source, (FOLDER / f"{source}.toml").read_text("utf-8"))
    recipe = find_table_recipe(source)
    if recipe is None:
        raise RecipeError(
            f"there is no recipe {source!r}: give a .toml file, one of "
            f"{', '.join(recipe_file_names())}, or a cell of a table, as in "
            "cifar100/vgg13-vgg8/oto."
        )
    return recipe


def _parse(source: str, text: str) -> Recipe:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {source} is not valid TOML: {error}.") from error
    return validate_recipe(source, content)


def recipe_file_names() -> list[str]:
    """The recipes that ship with Offramp as files."""
    return toml_names(FOLDER)


def train_command(file: Path, runs: Path) -> str:
    """The command that trains the recipe in `file` into the directory `runs`."""
    default = () if runs == DEFAULT_RUNS else ("--runs", str(runs))
    return shlex.join(("offramp", "train", str(file), *default))


def to_toml(recipe: Recipe) -> str:
    """`recipe` as TOML with all its values; `load_recipe` returns the same recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def write_recipe(recipe: Recipe, path: Path, comments: Sequence[str] = ()) -> None:
    """Write `recipe` with all its values to `path` in one step, below one-line `comments`."""
    head = "".join(f"# {comment}\n" for comment in comments)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(head + to_toml(recipe), "utf-8")
