"""Recipes as TOML: read, found among those that come with Offramp, written."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import tomli_w

from offramp.files import replacing
from training.errors import RecipeError
from training.recipes.cells import find_recipe
from training.recipes.schema import Recipe, validate_recipe


def load_recipe(source: str) -> Recipe:
    """Read a recipe from a TOML file, or by its name from those that come with Offramp: the files of
    training/recipes, and the cells of its tables, as in cifar100/vgg13-vgg8/oto.

    Raises RecipeError, in one sentence, if there is none or it is not valid.
    """
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe {source} cannot be read: {error}.") from error
    else:
        composed = find_recipe(source)
        if composed is not None:
            return composed
        shipped = shipped_recipes()
        if source not in shipped:
            raise RecipeError(
                f"there is no recipe {source!r}: give a .toml file, one of {', '.join(shipped)}, "
                "or a cell of a table, as in cifar100/vgg13-vgg8/oto."
            )
        text = (files("training") / "recipes" / f"{source}.toml").read_text("utf-8")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {source} is not valid TOML: {error}.") from error
    return validate_recipe(source, content)


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with Offramp as files."""
    folder = files("training") / "recipes"
    return sorted(
        entry.name[: -len(".toml")] for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def recipe_toml(recipe: Recipe) -> str:
    """`recipe` as TOML with all its values; `load_recipe` gives the same recipe back."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def write_recipe(recipe: Recipe, path: Path, comments: Sequence[str] = ()) -> None:
    """Write `recipe` with all its values to `path`, in one step, below `comments` of one line each."""
    head = "".join(f"# {comment}\n" for comment in comments)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(head + recipe_toml(recipe), "utf-8")
