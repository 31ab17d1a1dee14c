"""`offramp train` and `offramp recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from offramp.extras import needs_extra


class _Options(TypedDict):
    """What a run takes whether its recipe was named or chosen."""

    runs: Path
    device: str
    resume: bool
    compiled: bool


def train(
    ctx: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A .toml file, or the name of a recipe that comes with Offramp. Without one, --data "
            "names a folder of pictures, and a recipe is chosen for them."
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept, one directory each.")] = Path(
        "runs"
    ),
    data: Annotated[
        Path,
        typer.Option(
            envvar="OFFRAMP_DATA",
            help="Where data sets are kept; without a recipe, a folder of pictures per class.",
        ),
    ] = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch compile the network first.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Without a recipe: use no pretrained weights.")
    ] = False,
    teacher: Annotated[
        bool,
        typer.Option("--teacher", help="Without a recipe: train a larger network first to teach."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Take two steps on noise, write nothing, say what the run would take.",
        ),
    ] = False,
) -> None:
    """Train a network from a recipe and leave a checkpoint in RUNS/NAME."""
    with needs_extra("train"):
        from training.auto_train import train_folder
        from training.distributed import DistContext, joined
        from training.dry_run import dry_run as run_dry
        from training.recipes.files import load_recipe
        from training.session import run_recipe
    from training.errors import RecipeError, StoppedError

    options: _Options = {"runs": runs, "device": device, "resume": resume, "compiled": compiled}
    with joined(device):
        try:
            if recipe is None:
                given = ctx.get_parameter_source("data")
                if dry_run or given is None or given.name != "COMMANDLINE":
                    raise RecipeError(
                        "name a recipe, or a folder with one folder of pictures per class: "
                        "`offramp train --data photos/`."
                    )
                config = train_folder(
                    data, from_scratch=from_scratch, teacher=teacher, say=typer.echo, **options
                )
            else:
                if from_scratch or teacher:
                    raise RecipeError(
                        f"--from-scratch and --teacher choose a recipe; {recipe} is one already."
                    )
                loaded = load_recipe(recipe)
                if dry_run:
                    typer.echo(run_dry(loaded, device=device))
                    return
                config = run_recipe(loaded, data_root=data, download=download, **options)
        except KeyboardInterrupt:
            raise StoppedError("stopped; add --resume to the same command to go on.") from None
        if DistContext.current().first:
            exits = ", ".join(
                f"exit {k}: {value:.2f}" for k, value in enumerate(config.test.exits, 1)
            )
            typer.echo(f"test accuracy, %: {exits}, ensemble: {config.test.ensemble:.2f}")
            typer.echo(f"checkpoint: {runs / config.recipe.name}")


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="A recipe that comes with Offramp, or a .toml file.")
    ] = None,
) -> None:
    """Print a recipe as TOML with all its values; without NAME, the names of all there are."""
    with needs_extra("train"):
        from training.recipes.files import load_recipe, recipe_file_names, to_toml
        from training.recipes.table_recipes import table_recipe_names

    if name is None:
        typer.echo("\n".join([*recipe_file_names(), *table_recipe_names()]))
    else:
        typer.echo(to_toml(load_recipe(name)), nl=False)
