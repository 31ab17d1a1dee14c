"""Recipes as TOML files: read, found among those that come with Offramp, written."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from training.errors import RecipeError
from training.recipe import Recipe


def load_recipe(source: str) -> Recipe:
    """Read a recipe from a TOML file, or by its name from those that come with Offramp.

    Raises RecipeError, in one sentence, if there is none or it is not valid.
    """
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe {source} cannot be read: {error}.") from error
    else:
        shipped = shipped_recipes()
        if source not in shipped:
            raise RecipeError(
                f"there is no recipe {source!r}: give a .toml file or one of {', '.join(shipped)}."
            )
        text = (files("training") / "recipes" / f"{source}.toml").read_text("utf-8")
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {source} is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise RecipeError(f"the recipe {source} is not valid: {where}: {first['msg']}.") from error


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with Offramp."""
    folder = files("training") / "recipes"
    return sorted(
        entry.name[: -len(".toml")] for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def write_recipe(recipe: Recipe, path: Path, comments: Sequence[str] = ()) -> None:
    """Write `recipe` with all its values to `path`, below `comments` of one line each.

    `load_recipe` gives the same recipe back.
    """
    content = tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
    head = "".join(f"# {comment}\n" for comment in comments)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(head + content, "utf-8")
    part.replace(path)
