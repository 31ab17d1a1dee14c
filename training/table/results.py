"""Results of a table's runs, read from the runs' directories and from a JSON file.

The file also holds results whose run directories are elsewhere, so a table can be filled on several
machines. A result counts only for exactly the recipe of its run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from training.checkpoint import CONFIG, ExitAccuracies, read_config, resume_state
from training.errors import CheckpointError
from training.recipes.schema import Recipe
from training.recipes.table_definition import load_table
from training.recipes.table_recipes import Variant, find_table_recipe


class RunResult(BaseModel):
    """One run: finished with test accuracies, failed with a reason, or stopped after `epochs_done`."""

    model_config = ConfigDict(extra="forbid")

    recipe: Recipe
    test: ExitAccuracies | None = None
    seconds: float | None = None
    tools: dict[str, str] = {}
    failed: str | None = None
    epochs_done: int = 0

    @property
    def ended(self) -> bool:
        """Whether it finished or failed."""
        return self.test is not None or self.failed is not None


class Results:
    """The results of one table under one protocol, by the run's name."""

    def __init__(self, runs: dict[str, RunResult] | None = None) -> None:
        self.runs = runs or {}

    def add(self, result: RunResult) -> None:
        """Store `result`, replacing an earlier one of the same name."""
        self.runs[result.recipe.name] = result

    def get(self, recipe: Recipe) -> RunResult | None:
        """The result of `recipe`, or None."""
        result = self.runs.get(recipe.name)
        return result if result is not None and result.recipe == recipe else None

    def finished(self, recipe: Recipe) -> bool:
        """Whether the run of `recipe` is finished."""
        result = self.get(recipe)
        return result is not None and result.test is not None

    def seeds(self, recipe: Recipe) -> list[RunResult]:
        """The results of `recipe` under all seeds, sorted by seed."""
        stem = recipe.name.rpartition("/")[0]
        same = (r for name, r in self.runs.items() if name.rpartition("/")[0] == stem)
        return sorted(same, key=lambda result: result.recipe.seed)


class _Stored(BaseModel):
    """The part of a results file that is read back."""

    runs: dict[str, RunResult]


def read_results(files: Iterable[Path], runs: Path, table: str, variant: Variant) -> Results:
    """The results in `files`, updated with those of the run directories below `runs`.

    Results of another protocol than `variant` or of another recipe than the table's are ignored.
    Raises CheckpointError if a file or a checkpoint cannot be read.
    """
    results = Results()
    for file in files:
        try:
            stored = _Stored.model_validate_json(file.read_text("utf-8"))
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{file} is not a file of results; move it away.") from error
        for stored_result in stored.runs.values():
            replaces = stored_result.test is not None or not results.finished(stored_result.recipe)
            if belongs(stored_result.recipe, variant) and replaces:
                results.add(stored_result)
    for name in _run_names(runs, table):
        result = read_run(runs, name)
        if result is not None and belongs(result.recipe, variant):
            earlier = results.get(result.recipe)
            # An unfinished run does not replace an earlier result that ended.
            if result.test is not None or earlier is None or not earlier.ended:
                results.add(result)
    return results


def belongs(recipe: Recipe, variant: Variant) -> bool:
    """Whether `recipe` is the table's recipe of its name, under the protocol `variant` or its teachers'."""
    if find_table_recipe(recipe.name) != recipe:
        return False
    match = re.search(r"/((?:epochs|width|teacher|views)[^/]*)/seed", recipe.name)
    taught = recipe.teacher is not None
    expected = {variant.applied(recipe.objective.method, taught).name}
    if not taught:  # it may be a teacher
        table = load_table(recipe.name.partition("/")[0])
        expected.add(variant.of_teacher.changes_to(table).name)
    return (match[1] if match else "") in expected


def read_run(runs: Path, name: str) -> RunResult | None:
    """The run in directory `runs`/`name`, finished or stopped, or None. Raises CheckpointError."""
    directory = runs / name
    if (directory / CONFIG).is_file():
        config = read_config(directory)
        return RunResult(
            recipe=config.recipe,
            test=config.test,
            seconds=config.seconds,
            tools=config.tools,
        )
    state = resume_state(directory)
    if state is None:
        return None
    return RunResult(recipe=state.recipe, epochs_done=state.epochs_done)


def _run_names(runs: Path, table: str) -> Iterator[str]:
    for directory in sorted((runs / table).glob("**/seed*")):
        if directory.is_dir():
            yield directory.relative_to(runs).as_posix()
