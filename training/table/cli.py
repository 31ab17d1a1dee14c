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
        typer.Option(help="Which rows, as PAIR/METHOD: patterns as in 'vgg13-vgg8/*,wrn*/oto'."),
    ] = "*",
    train: Annotated[
        bool, typer.Option("--train", help="Train or resume the rows, not only show them.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Seeds to train under, as in 0,1,2.")] = "0",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Another number of epochs than the table's; kept apart."),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Another width of all networks' first stages; kept apart."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept, one directory each.")] = Path(
        "runs"
    ),
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="Where data sets are kept.")
    ] = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data.")] = False,
    out: Annotated[
        Path, typer.Option(help="Where the table's JSON file and picture are kept.")
    ] = Path("benchmarks"),
    write: Annotated[
        bool, typer.Option("--write", help="Bring JSON and picture up to date without training.")
    ] = False,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write the table between its markers in this Markdown file."),
    ] = None,
) -> None:
    """Show a table of the paper, published beside measured; with --train, fill it.

    Leaves with 1 if a run failed; the others are made all the same.
    """
    with needs_extra("train"):
        from training.table.session import Session
    from training.recipes.table_recipes import Variant
    from training.table.rows import parse_seeds

    session = Session.open(name, rows, Variant(epochs, width), runs, out)
    failures = {}
    if train:
        failures = session.train(
            parse_seeds(seeds), data_root=data, device=device, download=download, say=typer.echo
        )
    if train or write:
        session.write()
    if markdown is not None:
        session.into_document(markdown)
    session.show()
    for failed, why in failures.items():
        typer.echo(f"failed: {failed}: {why}", err=True)
    if failures:
        raise typer.Exit(1)
