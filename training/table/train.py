"""Trains the chosen cells of a table with all they need, one run after the other."""

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
from training.session import run_recipe
from training.table.results import Results, RunResult, read_run


def plan(
    table: Table,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    variant: Variant,
    results: Results,
) -> list[Recipe]:
    """The runs that `cells` still lack under `seeds`, and all that these build on, which comes first."""
    wanted = [cell_recipe(table, cell, variant, seed) for cell in cells for seed in seeds]
    return with_prerequisites(recipe for recipe in wanted if not results.finished(recipe))


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
    """Run or resume `recipes` in their order; finished ones are left as they are.

    Adds to `results` and calls `after_each` run that ended. A run that fails is skipped, with those
    that build on it. Returns why, by name; what every run would meet, missing data say, is raised.
    """
    failures: dict[str, str] = {}
    for position, recipe in enumerate(recipes, 1):
        name = recipe.name
        if _has_checkpoint(recipe, runs):
            say(f"[{position}/{len(recipes)}] {name} is finished already")
            continue
        say(f"[{position}/{len(recipes)}] {name}")
        lost = [needed for needed in prerequisites(recipe) if needed in failures]
        if lost:
            failures[name] = f"{lost[0]} failed."
            say(f"{name} is left out: {lost[0]} failed")
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
        except BusyError as error:  # no end of the run: nothing to keep
            failures[name] = str(error)
            say(f"{name} is left out: {error}")
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
    here = read_run(runs, recipe.name)
    return here is not None and here.test is not None and here.recipe == recipe
