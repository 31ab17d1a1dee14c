"""Tables of experiments: pairs of networks, rows of methods, one protocol, published accuracies."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.errors import RecipeError
from training.recipes.network import CifarNetwork, stages_of
from training.recipes.schema import DataRecipe, Objective, TrainRecipe
from training.recipes.shipped import toml_names

FOLDER = files("training") / "recipes" / "tables"

Percent = Annotated[float, Field(ge=0, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pair(_Part):
    """A teacher network and a student network."""

    teacher: CifarNetwork
    student: CifarNetwork

    @property
    def name(self) -> str:
        """As in `vgg13-vgg8`."""
        return f"{self.teacher}-{self.student}"


class Row(_Part):
    """One method, for every pair of its table.

    `teacher` is the key of the row that trains the teacher network; without one, the row trains a
    network alone. `frozen` is the key of the row that trains the frozen backbone. Rows that are not
    `listed` are trained where others need them, but not shown. `published` holds the paper's ensemble
    accuracy (of a single exit: that exit's) for every pair, `published_exits` the exits' by pair,
    `published_networks` the accuracy by network; all in percent.
    """

    key: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    exits: Literal["last", "all"]
    objective: Objective
    teacher: str | None = None
    frozen: str | None = None
    autoaugment: bool = False
    listed: bool = True
    published: tuple[Percent, ...] = ()
    published_exits: dict[str, tuple[Percent, ...]] = {}
    published_networks: dict[str, Percent] = {}

    def exits_of(self, network: str) -> tuple[int, ...]:
        """The stages of `network` that carry a head."""
        last = stages_of(network)
        return (last,) if self.exits == "last" else tuple(range(1, last + 1))


class Doubt(_Part):
    """Published cells, written PAIR/ROW, that may be wrong, and why."""

    cells: tuple[str, ...]
    why: str


class Table(_Part):
    """Pairs x rows under one protocol.

    `autoaugment` overrides `data` for rows with AutoAugment, `frozen` overrides `train` for rows on a
    frozen backbone. `width` is that of every network; None for their published ones.
    """

    name: str
    source: str | None = None
    data: DataRecipe
    autoaugment: dict[str, str | int]
    train: TrainRecipe
    frozen: dict[str, int | list[int]]
    width: int | None = None
    pairs: tuple[Pair, ...]
    rows: tuple[Row, ...]
    doubts: tuple[Doubt, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        keys = {row.key: row for row in self.rows}
        if len(keys) != len(self.rows):
            raise ValueError("two rows have the same key")
        for row in self.rows:
            for other in (row.teacher, row.frozen):
                if other is not None and (other not in keys or keys[other].teacher is not None):
                    raise ValueError(
                        f"row {row.key} needs {other}, which does not train a network alone"
                    )
            if row.published and len(row.published) != len(self.pairs):
                raise ValueError(f"row {row.key} needs one published figure per pair")
        cells = {f"{pair.name}/{row.key}" for pair in self.pairs for row in self.rows}
        for doubt in self.doubts:
            if not cells.issuperset(doubt.cells):
                raise ValueError(f"a doubt names no cell: {', '.join(doubt.cells)}")
        return self

    @property
    def listed(self) -> list[Row]:
        """The rows that are shown."""
        return [row for row in self.rows if row.listed]

    def row(self, key: str) -> Row | None:
        """The row with that key, or None."""
        return next((row for row in self.rows if row.key == key), None)

    def pair(self, name: str) -> Pair | None:
        """The pair of that name, or None."""
        return next((pair for pair in self.pairs if pair.name == name), None)

    def published(self, pair: Pair, row: Row) -> float | None:
        """The published accuracy of a cell in percent, or None."""
        if row.published:
            return row.published[self.pairs.index(pair)]
        return row.published_networks.get(pair.student)

    def doubts_of(self, pair: Pair, row: Row) -> list[str]:
        """Why the published figure of a cell may be wrong."""
        return [doubt.why for doubt in self.doubts if f"{pair.name}/{row.key}" in doubt.cells]


def table_names() -> list[str]:
    """The tables that ship with Offramp."""
    return toml_names(FOLDER)


@cache
def load_table(name: str) -> Table:
    """The table of that name. Raises RecipeError if there is none."""
    if name not in table_names():
        raise RecipeError(f"there is no table {name!r}; there are {', '.join(table_names())}.")
    return Table.model_validate(tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")))
