"""The recipes of the tables, by name: "cifar100/vgg13-vgg8/oto/seed0".

A name is TABLE/PAIR/ROW/seedS for a student with a teacher, and TABLE/NETWORK/ROW/seedS for a network
alone. A protocol other than the table's own comes before the seed, as in
cifar100/vgg13-vgg8/oto/epochs24-width16/seed0, so a name fully determines its recipe.
`find_table_recipe` reads a name, `cell_recipe` composes the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from training.recipes.network import CifarNetwork
from training.recipes.schema import Recipe, TrainRecipe, validate_recipe
from training.recipes.table_definition import Pair, Row, Table, load_table, table_names
from training.recipes.teacher import LOGIT_METHODS

# Students of every seed have the same teacher, as is usual: only the student varies.
TEACHER_SEED = 0

_SEED = re.compile(r"seed(0|[1-9][0-9]*)")
_VARIANT = re.compile(
    "-?".join(rf"(?:{part}([1-9][0-9]*))?" for part in ("epochs", "width", "teacher", "views"))
)


@dataclass(frozen=True)
class Variant:
    """Changes to a table's protocol; by default none.

    `epochs` replaces the number of epochs (milestones and preparation in proportion), `width` the
    channels of every network's first stage. `teacher_epochs` is the number of epochs of the teachers
    alone. `views` caches so many views of the teacher's logits in the rows that need nothing else of a
    teacher. Rows that one of these two does not concern are the same without it, and so are their names.
    """

    epochs: int | None = None
    width: int | None = None
    teacher_epochs: int | None = None
    views: int | None = None

    @property
    def name(self) -> str:
        """As in `epochs24-width16-teacher48-views24`; empty for the table's own protocol."""
        parts = [
            ("epochs", self.epochs),
            ("width", self.width),
            ("teacher", self.teacher_epochs),
            ("views", self.views),
        ]
        return "-".join(f"{field}{value}" for field, value in parts if value is not None)

    def changes_to(self, table: Table) -> Variant:
        """The same without the values that equal those of `table`."""
        epochs = self.epochs or table.train.epochs
        return Variant(
            None if self.epochs == table.train.epochs else self.epochs,
            None if self.width == table.width else self.width,
            None if self.teacher_epochs == epochs else self.teacher_epochs,
            self.views,
        )

    @property
    def untaught(self) -> Variant:
        """The same as it applies to a network without a teacher."""
        return replace(self, teacher_epochs=None, views=None)

    @property
    def of_teacher(self) -> Variant:
        """The protocol of the teachers."""
        return replace(self.untaught, epochs=self.teacher_epochs or self.epochs)

    def applied(self, method: str, taught: bool) -> Variant:
        """The same as it applies to a row with that objective, and with a teacher or without."""
        if not taught:
            return self.untaught
        return self if method in LOGIT_METHODS else replace(self, views=None)


@dataclass(frozen=True)
class Cell:
    """A row of a table for one pair."""

    pair: Pair
    row: Row

    @property
    def name(self) -> str:
        """PAIR/ROW, as in `vgg13-vgg8/oto`."""
        return f"{self.pair.name}/{self.row.key}"


def find_table_recipe(name: str) -> Recipe | None:
    """The recipe called `name`, or None if no table has it. Without a seed, seed 0 is used.

    For a pair and a row without a teacher it is the student network's recipe, under that name.
    """
    table_name, *rest = name.split("/")
    if table_name not in table_names() or len(rest) not in (2, 3, 4):
        return None
    table = load_table(table_name)
    row = table.row(rest[1])
    variant_and_seed = _parse_variant_and_seed(table, rest[2:])
    if row is None or variant_and_seed is None:
        return None
    variant, seed = variant_and_seed
    if _applied_to(row, variant) != variant:
        return None  # such a row has one name with these values and without
    pair = table.pair(rest[0])
    if pair is not None:
        return cell_recipe(table, Cell(pair, row), variant, seed)
    networks = {n: n for p in table.pairs for n in (p.teacher, p.student)}
    if row.teacher is None and rest[0] in networks:
        return network_recipe(table, networks[rest[0]], row, variant, seed)
    return None


def cell_recipe(table: Table, cell: Cell, variant: Variant, seed: int) -> Recipe:
    """The recipe of a cell: the student network's own where the row has no teacher."""
    if cell.row.teacher is None:
        return network_recipe(table, cell.pair.student, cell.row, variant, seed)
    teacher_row = table.row(cell.row.teacher)
    assert teacher_row is not None
    teacher = run_name(table, cell.pair.teacher, teacher_row, variant.of_teacher, TEACHER_SEED)
    name = run_name(table, cell.pair.name, cell.row, variant, seed)
    reference: dict[str, object] = {"recipe": teacher}
    views = _applied_to(cell.row, variant).views
    if views is not None:
        reference["views"] = views
    return _compose(table, name, cell.pair.student, cell.row, variant, seed, teacher=reference)


def network_recipe(
    table: Table, network: CifarNetwork, row: Row, variant: Variant, seed: int
) -> Recipe:
    """The recipe of a row without a teacher for one network."""
    references: dict[str, object] = {}
    if row.frozen is not None:
        backbone_row = table.row(row.frozen)
        assert backbone_row is not None
        start = run_name(table, network, backbone_row, variant, seed)
        references["start"] = {"recipe": start, "frozen": True}
    name = run_name(table, network, row, variant, seed)
    return _compose(table, name, network, row, variant, seed, **references)


def run_name(table: Table, pair_or_network: str, row: Row, variant: Variant, seed: int) -> str:
    """The name of a recipe and of its run."""
    changes = _applied_to(row, variant.changes_to(table))
    parts = [table.name, pair_or_network, row.key, changes.name, f"seed{seed}"]
    return "/".join(part for part in parts if part)


def _applied_to(row: Row, variant: Variant) -> Variant:
    return variant.applied(row.objective.method, row.teacher is not None)


def _compose(
    table: Table,
    name: str,
    network: CifarNetwork,
    row: Row,
    variant: Variant,
    seed: int,
    **references: object,
) -> Recipe:
    data = table.data.model_dump() | (table.autoaugment if row.autoaugment else {})
    train = table.train.model_dump() | (dict(table.frozen) if row.frozen else {})
    shape: dict[str, object] = {"name": network, "exits": row.exits_of(network)}
    width = variant.width or table.width
    if width is not None:
        shape["width"] = width
    objective = row.objective.model_dump(exclude_none=True)
    if variant.epochs is not None:
        factor = variant.epochs / table.train.epochs
        train |= scaled(TrainRecipe.model_validate(train), factor)
        if "preparation" in objective:
            objective["preparation"] = max(1, round(objective["preparation"] * factor))
    content = {
        "name": name,
        "seed": seed,
        "data": data,
        "network": shape,
        "objective": objective,
        "train": train,
        **references,
    }
    return validate_recipe(name, content)


def scaled(train: TrainRecipe, factor: float) -> dict[str, Any]:
    """Epochs and milestones of `train` times `factor`; equal milestones are merged."""
    epochs = max(1, round(train.epochs * factor))
    milestones = {max(1, round(milestone * factor)) for milestone in train.milestones}
    return {"epochs": epochs, "milestones": sorted(m for m in milestones if m < epochs)}


def _parse_variant_and_seed(table: Table, parts: list[str]) -> tuple[Variant, int] | None:
    """Variant and seed from the end of a name, as in ["epochs24", "seed1"]."""
    seed = 0
    if parts and (match := _SEED.fullmatch(parts[-1])):
        seed, parts = int(match[1]), parts[:-1]
    if not parts:
        return Variant(), seed
    match = _VARIANT.fullmatch(parts[0])
    if match is None or len(parts) > 1:
        return None
    variant = Variant(*(None if group is None else int(group) for group in match.groups()))
    # A recipe has one name only: values equal to the table's are not written.
    return (variant, seed) if variant.changes_to(table).name == parts[0] else None


def prerequisites(recipe: Recipe) -> list[str]:
    """The names of the runs that must be finished before `recipe` can be trained."""
    references = (recipe.teacher, recipe.start)
    return [r.recipe for r in references if r is not None and r.recipe is not None]


def with_prerequisites(recipes: Iterable[Recipe]) -> list[Recipe]:
    """`recipes` and their prerequisites, each once, every run after those it needs."""
    ordered: dict[str, Recipe] = {}

    def add(recipe: Recipe) -> None:
        if recipe.name in ordered:
            return
        for name in prerequisites(recipe):
            prerequisite = find_table_recipe(name)
            assert prerequisite is not None
            add(prerequisite)
        ordered[recipe.name] = recipe

    for recipe in recipes:
        add(recipe)
    return list(ordered.values())


def table_recipe_names() -> list[str]:
    """All tables' recipes of seed 0 under the tables' own protocols, teachers included."""
    names: dict[str, None] = {}
    for table in map(load_table, table_names()):
        cells = [Cell(pair, row) for pair in table.pairs for row in table.listed]
        recipes = [cell_recipe(table, cell, Variant(), 0) for cell in cells]
        names |= dict.fromkeys(recipe.name for recipe in with_prerequisites(recipes))
    return list(names)
