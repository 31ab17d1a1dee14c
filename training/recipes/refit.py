"""The refit of a run: the same recipe once more on everything, the held-out split included.

Its weights are served. Temperatures, exit weights and thresholds are those of the first fit, which has not
seen the held-out split, so checkpoint and calibration are kept apart: RUNS/NAME and RUNS/NAME/refit.
"""

from __future__ import annotations

from training.recipes.schema import Recipe

REFIT = "refit"


def refit_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the refit of `recipe`: nothing is held out, and the runs that it needs are those
    runs' refits. If the run starts from given weights, those of both fits are averaged: they are near
    each other then, and their mean is more accurate than either."""
    changes: dict[str, object] = {
        "name": refit_name(recipe.name),
        "refit": False,
        "data": recipe.data.model_copy(update={"held_out": 0}),
        "average_with": None if recipe.start is None else recipe.name,
    }
    if recipe.followed_by is not None:
        changes["followed_by"] = refit_name(recipe.followed_by)
    for part in (recipe.start, recipe.teacher):
        if part is not None and part.recipe is not None:
            field = "start" if part is recipe.start else "teacher"
            changes[field] = part.model_copy(update={"recipe": refit_name(part.recipe)})
    return recipe.model_copy(update=changes)


def refit_name(name: str) -> str:
    """The name of the refit of the run `name`."""
    return f"{name}/{REFIT}"


def first_fit_name(name: str) -> str | None:
    """The name of the run of which the run `name` is the refit; None if it is none."""
    first, _, last = name.rpartition("/")
    return first if last == REFIT and first else None


def differ_only_in_refit(recipe: Recipe, other: Recipe) -> bool:
    """Whether the first fits of both recipes are the same."""
    return recipe == other.model_copy(update={"refit": recipe.refit})
