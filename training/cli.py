"""`offramp train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.errors import MissingExtraError


def train(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of a shipped recipe.")],
    runs: Annotated[Path, typer.Option(help="Where runs are kept, one directory each.")] = Path(
        "runs"
    ),
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="Where data sets are kept.")
    ] = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
) -> None:
    """Train a network from a recipe and leave a checkpoint in RUNS/NAME."""
    try:
        from training.session import run_recipe
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    from training.recipe_files import load_recipe

    loaded = load_recipe(recipe)
    config = run_recipe(
        loaded, runs=runs, data_root=data, device=device, download=download, resume=resume
    )
    exits = ", ".join(f"exit {k}: {value:.2f}" for k, value in enumerate(config.test.exits, 1))
    typer.echo(f"test accuracy, %: {exits}, ensemble: {config.test.ensemble:.2f}")
    typer.echo(f"checkpoint: {runs / loaded.name}")
