"""`offramp table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.extras import needs_extra


def table(
    name: Annotated[str, typer.Argument(help="cifar100, tiny-imagenet or digits.")],
    rows: Annotated[
        str,
        typer.Option(
            help="Rows to select, as PAIR/METHOD; patterns as in 'vgg13-vgg8/*,wrn*/oto'."
        ),
    ] = "*",
    train: Annotated[
        bool, typer.Option("--train", help="Train or resume the selected rows.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Seeds to train with, as in 0,1,2.")] = "0",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of epochs instead of the table's; results are kept apart."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=4,  # as in a recipe
            max=256,
            help="Width of all networks' first stages; results are kept apart.",
        ),
    ] = None,
    teacher_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of epochs of the teachers, if other than the students'; results are kept "
            "apart.",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Views of the teacher's logits to cache, for the rows that need nothing else of a "
            "teacher; their results are kept apart.",
        ),
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Directory of all runs, one subdirectory each.")
    ] = Path("runs"),
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="Directory of data sets.")
    ] = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download missing data.")] = False,
    out: Annotated[
        Path, typer.Option(help="Directory of the table's JSON file and picture.")
    ] = Path("benchmarks"),
    write: Annotated[
        bool, typer.Option("--write", help="Update JSON file and picture without training.")
    ] = False,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Markdown file to write the table into, between its markers."),
    ] = None,
) -> None:
    """Show a table of the paper with published and measured accuracies; with --train, train its rows.

    Exits with 1 if a run failed; the other runs are trained regardless.
    """
    with needs_extra("train"):
        from training.table.table_run import TableRun
    from training.recipes.table_recipes import Variant
    from training.table.selection import parse_seeds

    table_run = TableRun.open(name, rows, Variant(epochs, width, teacher_epochs, views), runs, out)
    failures = {}
    if train:
        failures = table_run.train(
            parse_seeds(seeds), data_root=data, device=device, download=download, say=typer.echo
        )
    if train or write:
        table_run.write()
    if markdown is not None:
        table_run.write_into_document(markdown)
    table_run.show()
    for failed, why in failures.items():
        typer.echo(f"failed: {failed}: {why}", err=True)
    if failures:
        raise typer.Exit(1)
