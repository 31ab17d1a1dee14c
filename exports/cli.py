"""`offramp export` and `offramp pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.errors import MissingExtraError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")],
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="Where data sets are kept.")
    ] = Path("data"),
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default the recipe's.")
    ] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "1",
) -> None:
    """Write a checkpoint as a bundle that `offramp serve` loads."""
    try:
        from exports.export import export_bundle
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    export_bundle(checkpoint, output, data_root=data, name=name, version=version, say=typer.echo)


def pack(
    bundle: Annotated[
        str, typer.Argument(help="A directory, a packed file, or https://…#sha256=…")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write (default: NAME-VERSION.offramp.zip)."
        ),
    ] = None,
) -> None:
    """Verify a bundle and write it as one file, the same bytes every time."""
    from exports.archive import pack_bundle
    from exports.bundle import read_manifest
    from exports.locate import locate

    path = locate(bundle)
    manifest = read_manifest(path)
    target = output or Path(f"{manifest.name}-{manifest.version}.offramp.zip")
    digest = pack_bundle(path, target)
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"behind its https address: #sha256={digest}")
