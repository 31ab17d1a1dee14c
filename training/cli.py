"""`offramp train` and `offramp recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.errors import MissingExtraError


def train(
    recipe: Annotated[
        str, typer.Argument(help="A .toml file, or the name of a recipe that comes with Offramp.")
    ],
    runs: Annotated[Path, typer.Option(help="Where runs are kept, one directory each.")] = Path(
        "runs"
    ),
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="Where data sets are kept.")
    ] = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch compile the network first.")
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Take two steps on noise, write nothing, say what the run would take.",
        ),
    ] = False,
) -> None:
    """Train a network from a recipe and leave a checkpoint in RUNS/NAME."""
    try:
        from training.distributed import Processes, joined
        from training.recipe_files import load_recipe
        from training.rehearse import rehearse as rehearsed
        from training.session import run_recipe
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    from training.errors import StoppedError

    with joined(device):
        loaded = load_recipe(recipe)
        if rehearse:
            typer.echo(rehearsed(loaded, device=device))
            return
        try:
            config = run_recipe(
                loaded,
                runs=runs,
                data_root=data,
                device=device,
                download=download,
                resume=resume,
                compiled=compiled,
            )
        except KeyboardInterrupt:
            raise StoppedError("stopped; add --resume to the same command to go on.") from None
        if Processes.current().first:
            exits = ", ".join(
                f"exit {k}: {value:.2f}" for k, value in enumerate(config.test.exits, 1)
            )
            typer.echo(f"test accuracy, %: {exits}, ensemble: {config.test.ensemble:.2f}")
            typer.echo(f"checkpoint: {runs / loaded.name}")


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="A recipe that comes with Offramp, or a .toml file.")
    ] = None,
) -> None:
    """Print a recipe as TOML with all its values; without NAME, the names of all there are."""
    try:
        from training.recipe_files import load_recipe, recipe_toml, shipped_recipes
        from training.table.compose import all_recipes
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "tomli-w", "train") from error

    if name is None:
        typer.echo("\n".join([*shipped_recipes(), *all_recipes()]))
    else:
        typer.echo(recipe_toml(load_recipe(name)), nl=False)
