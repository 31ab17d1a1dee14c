"""A table filled with published and measured accuracies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from offramp.files import replacing
from training.checkpoint import ExitAccuracies
from training.data.dataset import DATASET_INFO
from training.models.cost import network_cost
from training.recipes.schema import Recipe
from training.recipes.table_definition import Table
from training.recipes.table_recipes import Cell, Variant, cell_recipe, find_table_recipe
from training.table.results import Results, RunResult


class Spread(BaseModel):
    """Mean of `n` figures and their sample standard deviation, None for one figure."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def over(cls, figures: Sequence[float]) -> Spread:
        """The spread of one figure or more."""
        std = statistics.stdev(figures) if len(figures) > 1 else None
        return cls(
            mean=round(statistics.fmean(figures), 3),
            std=None if std is None else round(std, 3),
            n=len(figures),
        )


class Measured(BaseModel):
    """Test accuracies in percent over the finished seeds."""

    seeds: tuple[int, ...]
    exits: tuple[Spread, ...]
    ensemble: Spread


class TeacherResult(BaseModel):
    """The teacher's run, and its test accuracies once it is finished."""

    run: str
    test: ExitAccuracies | None


class CellResult(BaseModel):
    """One cell of the table.

    Accuracies are in percent; `exits` are the stages with an exit; `macs` are multiply-accumulates for
    one image with all exits. By seed, `failed` holds why a run failed and `stopped` the finished epochs
    of an unfinished run.
    """

    pair: str
    row: str
    title: str
    run: str
    exits: tuple[int, ...]
    published: float | None
    published_exits: tuple[float, ...]
    doubts: tuple[str, ...]
    measured: Measured | None
    failed: dict[int, str]
    stopped: dict[int, int]
    teacher: TeacherResult | None
    parameters: int
    macs: int


class FilledTable(BaseModel):
    """A table under one protocol with the results so far; the JSON file under benchmarks/.

    `changed` names the changes to the table's own protocol, as in `epochs24`; each changed protocol
    has its own file.
    """

    table: str
    source: str | None
    changed: str
    epochs: int
    cells: tuple[CellResult, ...]
    runs: dict[str, RunResult]


def fill(table: Table, cells: Sequence[Cell], variant: Variant, results: Results) -> FilledTable:
    """`cells` with the published figures and those in `results`."""
    changes = variant.changes_to(table)
    return FilledTable(
        table=table.name,
        source=table.source,
        changed=changes.name,
        epochs=changes.epochs or table.train.epochs,
        cells=tuple(_cell_result(table, cell, variant, results) for cell in cells),
        runs={name: r for name, r in sorted(results.runs.items()) if r.ended},
    )


def _cell_result(table: Table, cell: Cell, variant: Variant, results: Results) -> CellResult:
    recipe = cell_recipe(table, cell, variant, 0)
    seeds = results.seeds(recipe)
    shape = DATASET_INFO[recipe.data.name]
    parameters, macs = network_cost(recipe.network, shape.side, shape.classes)
    return CellResult(
        pair=cell.pair.name,
        row=cell.row.key,
        title=cell.row.title,
        run=recipe.name.rpartition("/")[0],
        exits=recipe.network.exits,
        published=table.published(cell.pair, cell.row),
        published_exits=cell.row.published_exits.get(cell.pair.name, ()),
        doubts=tuple(table.doubts_of(cell.pair, cell.row)),
        measured=_measured([result for result in seeds if result.test is not None]),
        failed={r.recipe.seed: r.failed for r in seeds if r.failed is not None},
        stopped={r.recipe.seed: r.epochs_done for r in seeds if not r.ended},
        teacher=_teacher_result(recipe, results),
        parameters=parameters,
        macs=macs,
    )


def _measured(finished: Sequence[RunResult]) -> Measured | None:
    tests = [result.test for result in finished if result.test is not None]
    if not tests:
        return None
    return Measured(
        seeds=tuple(result.recipe.seed for result in finished),
        exits=tuple(Spread.over(exits) for exits in zip(*(t.exits for t in tests), strict=True)),
        ensemble=Spread.over([test.ensemble for test in tests]),
    )


def _teacher_result(recipe: Recipe, results: Results) -> TeacherResult | None:
    if recipe.teacher is None or recipe.teacher.recipe is None:
        return None
    name = recipe.teacher.recipe
    teacher = find_table_recipe(name)
    assert teacher is not None
    result = results.get(teacher)
    return TeacherResult(run=name, test=result.test if result else None)


def write_json(filled: FilledTable, file: Path) -> None:
    """Write `filled` as JSON to `file` in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        part.write_text(filled.model_dump_json(indent=1) + "\n", "utf-8")
