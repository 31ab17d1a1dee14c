"""Recipes: TOML files that fully determine a training run."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError

Positive = Annotated[int, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataRecipe(_Table):
    """Which data, how many training samples are held out for calibration, which augmentation."""

    name: Literal["cifar100", "digits"]
    held_out: Positive
    held_out_seed: int = 0
    padding: Annotated[int, Field(ge=0, le=16)] = 4
    flip: bool = True


class NetworkRecipe(_Table):
    """Backbone, channels of its first stage, and the stages that carry a head (1-based)."""

    name: Literal["resnet10", "resnet18", "resnet34", "resnet50"]
    width: Annotated[int, Field(ge=4, le=256)] = 64
    exits: tuple[int, ...] = (1, 2, 3, 4)

    @model_validator(mode="after")
    def _exits_increase_to_the_last_stage(self) -> Self:
        if sorted(set(self.exits)) != list(self.exits) or self.exits[-1:] != (4,):
            raise ValueError("exits must increase and end with 4, the last stage")
        if self.exits[0] < 1:
            raise ValueError("exits count from 1")
        return self


class ObjectiveRecipe(_Table):
    """What is minimised; `temperature` and `alpha` are those of the distillation formulas."""

    name: Literal["cross_entropy", "kd", "mskd", "oto"]
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9


class TeacherRecipe(_Table):
    """The recipe whose finished run teaches."""

    recipe: str


class Progressive(_Table):
    """Images shrunk to `side` pixels for the first `fraction` of the epochs, to save compute."""

    side: Annotated[int, Field(ge=8)]
    fraction: Annotated[float, Field(gt=0, lt=1)]


class TrainRecipe(_Table):
    """The optimiser: SGD with Nesterov momentum, linear warm-up, then linear decay to zero."""

    epochs: Positive
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    precision: Literal["fp32", "bf16"] = "bf16"
    progressive: Progressive | None = None


class Recipe(_Table):
    """A whole training run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataRecipe
    network: NetworkRecipe
    objective: ObjectiveRecipe
    teacher: TeacherRecipe | None = None
    train: TrainRecipe

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        distils = self.objective.name != "cross_entropy"
        if distils and self.teacher is None:
            raise ValueError(f"objective {self.objective.name} needs a [teacher]")
        if not distils and self.teacher is not None:
            raise ValueError("objective cross_entropy takes no [teacher]")
        if self.objective.name == "kd" and len(self.network.exits) != 1:
            raise ValueError(
                "objective kd trains one exit: set network.exits = [4], or use mskd for all exits"
            )
        return self


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
