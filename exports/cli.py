"""`offramp export` and `offramp pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exports.cli_options import (
    AllowLoss,
    License,
    Output,
    TargetOption,
    export_options,
)
from exports.options import PrecisionChoice
from offramp.extras import needs_extra


def export(
    source: Annotated[
        Path, typer.Argument(help="The directory of a finished run, or a float32 bundle.")
    ],
    output: Output,
    data: Annotated[
        Path, typer.Option(envvar="OFFRAMP_DATA", help="The directory of the data sets.")
    ] = Path("data"),
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Images to choose temperatures and thresholds on, a subfolder for each class; default: "
            "those that training held out."
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="With --calibrate: images to measure on, a subfolder for each class."),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="Most percentage points that the default policy is below the ensemble (default: 0.5)."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default the recipe's.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="The model's version; by default the bundle's, or 1.")
    ] = None,
    license_: License = "unknown",
    precision: Annotated[
        PrecisionChoice,
        typer.Option(
            help="Type of weights and computation; auto: int8 for a run of EfficientNet-Lite unless it "
            "costs over half a point, else fp32. fp16 is for GPUs and slower on CPUs."
        ),
    ] = "auto",
    target: TargetOption = "auto",
    graphs: Annotated[
        str,
        typer.Option(help="Whole-network graphs to add, with commas: exits, routed, maps."),
    ] = "",
    allow_loss: AllowLoss = False,
) -> None:
    """Write a checkpoint as a bundle that `offramp serve` loads, or a bundle in another precision."""
    from exports.bundle.errors import ExportError

    if test is not None and calibrate is None:
        raise ExportError(
            "--test goes with --calibrate; without it a run is tested on its own data."
        )
    if max_accuracy_drop is not None and not 0 <= max_accuracy_drop <= 100:
        raise ExportError(
            f"--max-accuracy-drop must lie between 0 and 100, not {max_accuracy_drop:g}."
        )
    options = export_options(
        name=name,
        version=version,
        license_=license_,
        precision=precision,
        target=target,
        graphs=graphs,
        allow_loss=allow_loss,
    )
    with needs_extra("train"):
        from exports.evaluation_data import EvaluationFolders
        from exports.pipeline import export_bundle
        from exports.tuning.goal import DEFAULT_DROP
    folders = None if calibrate is None else EvaluationFolders(calibrate, test)
    export_bundle(
        source,
        output,
        options,
        data_root=data,
        folders=folders,
        drop=DEFAULT_DROP if max_accuracy_drop is None else max_accuracy_drop / 100,
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
