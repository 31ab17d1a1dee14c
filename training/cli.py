"""`offramp train` and `offramp recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from offramp.extras import needs_extra


class _Options(TypedDict):
    """The options of every run, with a named or a chosen recipe."""

    runs: Path
    device: str
    resume: bool
    compiled: bool


class _Choices(TypedDict):
    """The options of the choice of recipes for an image folder."""

    from_scratch: bool
    teacher: bool
    refit: bool | None


def train(
    ctx: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A .toml file, or the name of a recipe that ships with Offramp. Without one, --data "
            "names an image folder, and a recipe is chosen for it."
        ),
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Directory of all runs, one subdirectory each.")
    ] = Path("runs"),
    data: Annotated[
        Path,
        typer.Option(
            envvar="OFFRAMP_DATA",
            help="Directory of data sets; without a recipe, an image folder: one subfolder per class.",
        ),
    ] = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download missing data.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a stopped run.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.")
    ] = False,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Without a recipe: do not start from pretrained weights."
        ),
    ] = False,
    teacher: Annotated[
        bool,
        typer.Option("--teacher", help="Without a recipe: train a larger teacher network first."),
    ] = False,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Without a recipe: train once more on everything, held-out images included. "
            "By default up to 5,000 images.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Take two steps on noise and print the time and memory a run needs; write nothing. "
            "For an image folder, too.",
        ),
    ] = False,
) -> None:
    """Train a network from a recipe and write its checkpoint to RUNS/NAME."""
    with needs_extra("train"):
        from training.auto_train import auto_train, plan_training
        from training.data.load import dataset_info
        from training.distributed import DistContext, join_processes
        from training.planning.dry_run import dry_run as take_two_steps
        from training.recipes.files import load_recipe
        from training.run import run_recipe
    from training.errors import RecipeError, StoppedError

    options: _Options = {"runs": runs, "device": device, "resume": resume, "compiled": compiled}
    with join_processes(device):
        try:
            if recipe is None:
                source = ctx.get_parameter_source("data")
                if source is None or source.name != "COMMANDLINE":
                    raise RecipeError(
                        "name a recipe, or an image folder with one subfolder per class: "
                        "`offramp train --data photos/`."
                    )
                chosen: _Choices = {
                    "from_scratch": from_scratch,
                    "teacher": teacher,
                    "refit": refit,
                }
                if dry_run:
                    plan_training(
                        data, runs=runs, device=device, resume=resume, say=typer.echo, **chosen
                    )
                    return
                config = auto_train(data, say=typer.echo, **chosen, **options)
            else:
                if from_scratch or teacher or refit is not None:
                    raise RecipeError(
                        "--from-scratch, --teacher and --refit are for a chosen recipe, but "
                        f"{recipe} is named."
                    )
                loaded = load_recipe(recipe)
                if dry_run:
                    info = dataset_info(loaded.data, data)
                    typer.echo(take_two_steps(loaded, runs=runs, device=device, info=info))
                    return
                config = run_recipe(loaded, data_root=data, download=download, **options)
        except KeyboardInterrupt:
            raise StoppedError("stopped; add --resume to the same command to go on.") from None
        if DistContext.current().is_main:
            split, found = "test", config.test
            if found is None:
                split, found = "held-out", config.held_out
            if found is not None:
                exits = ", ".join(
                    f"exit {k}: {value:.2f}" for k, value in enumerate(found.exits, 1)
                )
                typer.echo(f"{split} accuracy, %: {exits}, ensemble: {found.ensemble:.2f}")
            typer.echo(f"checkpoint: {runs / config.recipe.name}")


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="A recipe that ships with Offramp, or a .toml file.")
    ] = None,
) -> None:
    """Print a recipe as TOML with all its values; without NAME, list the names of all recipes."""
    with needs_extra("train"):
        from training.recipes.files import load_recipe, recipe_file_names, to_toml
        from training.recipes.table_recipes import table_recipe_names

    if name is None:
        typer.echo("\n".join([*recipe_file_names(), *table_recipe_names()]))
    else:
        typer.echo(to_toml(load_recipe(name)), nl=False)
