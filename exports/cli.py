"""`offramp export` and `offramp pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from exports.cli_options import Precision, Target, graph_kinds
from offramp.extras import needs_extra


def export(
    source: Annotated[
        Path, typer.Argument(help="The directory of a finished run, or a float32 bundle.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")],
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="The directory of the data sets.")
    ] = Path("data"),
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default the recipe's.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="The model's version; by default the bundle's, or 1.")
    ] = None,
    license_: Annotated[
        str,
        typer.Option(
            "--license", help="The licence of the weights for the model card, as the Hub spells it."
        ),
    ] = "unknown",
    precision: Annotated[
        Precision,
        typer.Option(help="Type of weights and computation. fp16 is for GPUs and slower on CPUs."),
    ] = "fp32",
    target: Annotated[
        Target,
        typer.Option(help="int8 type of activations and weights; auto: the faster one here."),
    ] = "auto",
    graphs: Annotated[
        str,
        typer.Option(help="Whole-network graphs to add, with commas: exits, routed, maps."),
    ] = "",
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Write it even if the ensemble loses over 0.5 points."),
    ] = False,
) -> None:
    """Write a checkpoint as a bundle that `offramp serve` loads, or a bundle in another precision."""
    kinds: Any = graph_kinds(graphs, precision, target)
    with needs_extra("train"):
        from exports.pipeline import export_bundle
    export_bundle(
        source,
        output,
        data_root=data,
        name=name,
        version=version,
        license_=license_,
        precision=precision,
        scheme=target,
        graphs=kinds,
        allow_loss=allow_loss,
        say=typer.echo,
    )


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
    """Verify a bundle and pack it into one file, reproducibly."""
    from exports.bundle.archive import pack_bundle
    from exports.bundle.reader import read_manifest
    from exports.bundle.resolve import resolve_bundle

    path = resolve_bundle(bundle)
    manifest = read_manifest(path)
    target = output or Path(f"{manifest.name}-{manifest.version}.offramp.zip")
    digest = pack_bundle(path, target)
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"add to its https address: #sha256={digest}")
