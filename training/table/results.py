"""What the runs of a table gave: read from the runs' directories, kept in a JSON file.

The file keeps results whose runs are no longer at hand, so that a table can be filled on several
machines and in several goes. A result counts only for the very recipe it was made with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from training.checkpoint import CONFIG, CheckpointConfig, ExitAccuracies, resume_state
from training.errors import CheckpointError
from training.recipes.schema import Recipe
from training.recipes.table_recipes import find_table_recipe


class RunResult(BaseModel):
    """One run: finished with test accuracies, or failed with a reason, or neither and stopped after
    `epochs_done`."""

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
        """Keep `result` in place of an earlier one."""
        self.runs[result.recipe.name] = result

    def of(self, recipe: Recipe) -> RunResult | None:
        """What the run of `recipe` gave, if it was run."""
        result = self.runs.get(recipe.name)
        return result if result is not None and result.recipe == recipe else None

    def finished(self, recipe: Recipe) -> bool:
        """Whether the run of `recipe` was made and came to its end."""
        result = self.of(recipe)
        return result is not None and result.test is not None

    def seeds(self, recipe: Recipe) -> list[RunResult]:
        """What runs of `recipe` under any seed gave, in the order of the seeds."""
        stem = recipe.name.rpartition("/")[0]
        found = (r for name, r in self.runs.items() if name.rpartition("/")[0] == stem)
        return sorted(found, key=lambda result: result.recipe.seed)


class _Stored(BaseModel):
    """The part of a results file that is read back."""

    runs: dict[str, RunResult]


def read_results(file: Path, runs: Path, table: str, variant: str) -> Results:
    """The results kept in `file` and those of the run directories below `runs`, which win.

    Results of another protocol than `variant` or of another recipe than the table's are left out.
    Raises CheckpointError if the file or a checkpoint cannot be read.
    """
    results = Results()
    if file.is_file():
        try:
            stored = _Stored.model_validate_json(file.read_text("utf-8"))
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{file} is not a file of results; move it away.") from error
        for kept in stored.runs.values():
            if belongs(kept.recipe, variant):
                results.add(kept)
    for name in _run_names(runs, table):
        found = read_run(runs, name)
        if found is not None and belongs(found.recipe, variant):
            earlier = results.of(found.recipe)
            # Of a run that stopped here, an earlier end is worth more.
            if found.test is not None or earlier is None or not earlier.ended:
                results.add(found)
    return results


def belongs(recipe: Recipe, variant: str) -> bool:
    """Whether `recipe` is the one its name stands for, under the protocol `variant`."""
    named = re.search(r"/((?:epochs|width)[^/]*)/seed", recipe.name)
    return find_table_recipe(recipe.name) == recipe and (named[1] if named else "") == variant


def read_run(runs: Path, name: str) -> RunResult | None:
    """The run in directory `runs`/`name`, finished or stopped; None where there is none."""
    directory = runs / name
    if (directory / CONFIG).is_file():
        try:
            config = CheckpointConfig.model_validate_json((directory / CONFIG).read_text("utf-8"))
        except ValidationError as error:
            raise CheckpointError(f"{directory / CONFIG} is not a valid checkpoint.") from error
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
