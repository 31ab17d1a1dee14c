"""Trains the selected cells of a table and their prerequisites, one run after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from training.errors import BusyError, CheckpointError, DivergedError, RecipeError
from training.recipes.schema import Recipe
from training.recipes.table_definition import Table
from training.recipes.table_recipes import (
    Cell,
    Variant,
    cell_recipe,
    prerequisites,
    with_prerequisites,
)
from training.run import run_recipe
from training.table.results import Results, RunResult, read_run


def plan(
    table: Table,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    variant: Variant,
    results: Results,
) -> list[Recipe]:
    """The missing runs of `cells` under `seeds`, after their prerequisites."""
    recipes = [cell_recipe(table, cell, variant, seed) for cell in cells for seed in seeds]
    return with_prerequisites(recipe for recipe in recipes if not results.finished(recipe))


def train_runs(
    recipes: Sequence[Recipe],
    results: Results,
    *,
    runs: Path,
    data_root: Path,
    device: str,
    download: bool,
    say: Callable[[str], None],
    after_each: Callable[[], None],
) -> dict[str, str]:
    """Train or resume `recipes` in their order; finished ones are skipped.

    After each run its result is added to `results` and `after_each` is called. A failed run does not
    stop the others, except those that need it. Returns the failed runs and why, by name. Raises errors
    that every run would meet, such as DataError.
    """
    failures: dict[str, str] = {}
    for position, recipe in enumerate(recipes, 1):
        name = recipe.name
        if _has_checkpoint(recipe, runs):
            say(f"[{position}/{len(recipes)}] {name} is finished already")
            continue
        say(f"[{position}/{len(recipes)}] {name}")
        failed = [needed for needed in prerequisites(recipe) if needed in failures]
        if failed:
            failures[name] = f"{failed[0]} failed."
            say(f"{name} is skipped: {failed[0]} failed")
            continue
        try:
            run_recipe(
                recipe,
                runs=runs,
                data_root=data_root,
                device=device,
                download=download,
                resume=True,
                say=say,
            )
        except BusyError as error:  # another process is training it: there is no result yet
            failures[name] = str(error)
            say(f"{name} is skipped: {error}")
            continue
        except (CheckpointError, DivergedError, RecipeError, torch.OutOfMemoryError) as error:
            failures[name] = str(error).splitlines()[0]
            say(f"{name} failed: {failures[name]}")
            results.add(RunResult(recipe=recipe, failed=failures[name]))
        else:
            result = read_run(runs, name)
            assert result is not None
            results.add(result)
        after_each()
    return failures


def _has_checkpoint(recipe: Recipe, runs: Path) -> bool:
    result = read_run(runs, recipe.name)
    return result is not None and result.test is not None and result.recipe == recipe
