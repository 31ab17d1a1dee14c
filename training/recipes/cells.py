"""From a place in a table to the recipe that trains it.

A run's name is TABLE/PAIR/ROW/seedS for what a pair's teacher instructs and TABLE/NETWORK/ROW/seedS
for a network alone. A protocol other than the table's own stands before the seed, as in
cifar100/vgg13-vgg8/oto/epochs24-width16/seed0, so that a name fully determines its recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training.recipes.network import CifarNetwork
from training.recipes.schema import Recipe, TrainRecipe, validate_recipe
from training.recipes.table_definition import Pair, Row, Table, load_table, table_names

# Students of every seed have the same teacher, the usual custom: what varies is the student.
TEACHER_SEED = 0

_SEED = re.compile(r"seed(0|[1-9][0-9]*)")
_VARIANT = re.compile(r"(?:epochs([1-9][0-9]*))?-?(?:width([1-9][0-9]*))?")


@dataclass(frozen=True)
class Variant:
    """What of the table's protocol is changed: epochs (milestones and the like in proportion), channels
    of every network's first stage. By default nothing."""

    epochs: int | None = None
    width: int | None = None

    @property
    def name(self) -> str:
        """As in `epochs24-width16`; empty for the table's own protocol."""
        parts = [("epochs", self.epochs), ("width", self.width)]
        return "-".join(f"{what}{value}" for what, value in parts if value is not None)

    def of(self, table: Table) -> Variant:
        """The same without what is as in `table` anyway."""
        return Variant(
            None if self.epochs == table.train.epochs else self.epochs,
            None if self.width == table.width else self.width,
        )


@dataclass(frozen=True)
class Cell:
    """A row of a table for one pair."""

    pair: Pair
    row: Row

    @property
    def name(self) -> str:
        """PAIR/ROW, as in `vgg13-vgg8/oto`."""
        return f"{self.pair.name}/{self.row.key}"


def cell_recipe(table: Table, cell: Cell, variant: Variant, seed: int) -> Recipe:
    """The recipe of a cell; of the student network's run where the row has no teacher."""
    if cell.row.teacher is None:
        return network_recipe(table, cell.pair.student, cell.row, variant, seed)
    teacher = table.row(cell.row.teacher)
    assert teacher is not None
    taught_by = run_name(table, cell.pair.teacher, teacher, variant, TEACHER_SEED)
    return _compose(
        table,
        run_name(table, cell.pair.name, cell.row, variant, seed),
        cell.pair.student,
        cell.row,
        variant,
        seed,
        teacher={"recipe": taught_by},
    )


def network_recipe(
    table: Table, network: CifarNetwork, row: Row, variant: Variant, seed: int
) -> Recipe:
    """The recipe of a row without a teacher for one network."""
    extra = {}
    if row.frozen is not None:
        backbone = table.row(row.frozen)
        assert backbone is not None
        start = run_name(table, network, backbone, variant, seed)
        extra["start"] = {"recipe": start, "frozen": True}
    name = run_name(table, network, row, variant, seed)
    return _compose(table, name, network, row, variant, seed, **extra)


def run_name(table: Table, place: str, row: Row, variant: Variant, seed: int) -> str:
    """The name of the run of `row` at `place`, a pair's name or a network's."""
    parts = [table.name, place, row.key, variant.of(table).name, f"seed{seed}"]
    return "/".join(part for part in parts if part)


def _compose(
    table: Table,
    name: str,
    network: CifarNetwork,
    row: Row,
    variant: Variant,
    seed: int,
    **extra: object,
) -> Recipe:
    data = table.data.model_dump() | (table.autoaugment if row.autoaugment else {})
    train = table.train.model_dump() | (dict(table.frozen) if row.frozen else {})
    shape: dict[str, object] = {"name": network, "exits": row.exits_of(network)}
    width = variant.width or table.width
    if width is not None:
        shape["width"] = width
    objective = row.objective.model_dump(exclude_none=True)
    if variant.epochs is not None:
        part = variant.epochs / table.train.epochs
        train |= scaled(TrainRecipe.model_validate(train), part)
        if "preparation" in objective:
            objective["preparation"] = max(1, round(objective["preparation"] * part))
    content = {
        "name": name,
        "seed": seed,
        "data": data,
        "network": shape,
        "objective": objective,
        "train": train,
        **extra,
    }
    return validate_recipe(name, content)


def scaled(train: TrainRecipe, part: float) -> dict[str, Any]:
    """Epochs and milestones of `train` times `part`; milestones that fall together become one."""
    epochs = max(1, round(train.epochs * part))
    milestones = {max(1, round(milestone * part)) for milestone in train.milestones}
    return {"epochs": epochs, "milestones": sorted(m for m in milestones if m < epochs)}


def find_recipe(name: str) -> Recipe | None:
    """The recipe called `name`, if some table has it. Seed 0 is meant where none is given.

    A pair's row without a teacher is the run of the student network, under that run's name.
    """
    first, *rest = name.split("/")
    if first not in table_names() or len(rest) not in (2, 3, 4):
        return None
    table = load_table(first)
    row = table.row(rest[1])
    modifiers = _modifiers(table, rest[2:])
    if row is None or modifiers is None:
        return None
    variant, seed = modifiers
    pair = table.pair(rest[0])
    if pair is not None:
        return cell_recipe(table, Cell(pair, row), variant, seed)
    networks = {n: n for p in table.pairs for n in (p.teacher, p.student)}
    if row.teacher is None and rest[0] in networks:
        return network_recipe(table, networks[rest[0]], row, variant, seed)
    return None


def _modifiers(table: Table, parts: list[str]) -> tuple[Variant, int] | None:
    """Variant and seed from what follows a row's key, as in ["epochs24", "seed1"]."""
    seed = 0
    if parts and (match := _SEED.fullmatch(parts[-1])):
        seed, parts = int(match[1]), parts[:-1]
    if not parts:
        return Variant(), seed
    match = _VARIANT.fullmatch(parts[0])
    if match is None or len(parts) > 1:
        return None
    epochs, width = (None if group is None else int(group) for group in match.groups())
    variant = Variant(epochs, width)
    # Only one way of writing a name is right.
    return (variant, seed) if variant.of(table).name == parts[0] else None


def with_what_it_needs(recipes: Iterable[Recipe]) -> list[Recipe]:
    """`recipes` and the runs they build on, each once, every run after those it needs."""
    ordered: dict[str, Recipe] = {}

    def add(recipe: Recipe) -> None:
        if recipe.name in ordered:
            return
        for name in needs(recipe):
            needed = find_recipe(name)
            assert needed is not None
            add(needed)
        ordered[recipe.name] = recipe

    for recipe in recipes:
        add(recipe)
    return list(ordered.values())


def needs(recipe: Recipe) -> list[str]:
    """The names of the runs that must be finished before `recipe` can be trained."""
    parts = (recipe.teacher, recipe.start)
    return [part.recipe for part in parts if part is not None and part.recipe is not None]


def all_recipes() -> list[str]:
    """The names of all tables' runs of seed 0 under the tables' own protocols, teachers included."""
    names: dict[str, None] = {}
    for table in map(load_table, table_names()):
        cells = [Cell(pair, row) for pair in table.pairs for row in table.listed]
        recipes = [cell_recipe(table, cell, Variant(), 0) for cell in cells]
        names |= dict.fromkeys(recipe.name for recipe in with_what_it_needs(recipes))
    return list(names)
