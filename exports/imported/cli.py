"""`offramp cascade`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from exports.cli_options import (
    CHANNELS,
    CROP,
    LAYOUT,
    MEAN,
    OUTPUTS,
    PREPROCESS,
    RESIZE,
    SIZE,
    STD,
    AllowLoss,
    AllowNoSaving,
    ImportedGraphs,
    License,
    Output,
    PrecisionOption,
    TargetOption,
    Version,
    export_options,
)
from exports.options import ResizeRule
from offramp.extras import needs_extra

Reference = Literal["last", "ensemble"]


# The names of exports.options once more: typer takes single Literals, not lists of them.
class LayoutName(enum.StrEnum):
    """The order of the axes of a network's input."""

    NCHW = "nchw"
    NHWC = "nhwc"


class ChannelsName(enum.StrEnum):
    """The order of the colours of a network's input."""

    RGB = "rgb"
    BGR = "bgr"


class OutputsName(enum.StrEnum):
    """What a network returns."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


def cascade(
    networks: Annotated[
        list[Path],
        typer.Argument(
            help="ONNX classifiers, the cheapest first; the first may be a bundle or a run."
        ),
    ],
    calibrate: Annotated[
        Path,
        typer.Option(help="Images: a subfolder for each class, or without labels in none."),
    ],
    output: Output,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Class names in the order of the outputs: one file, or one a network."),
    ] = None,
    preprocess: Annotated[
        list[str] | None,
        PREPROCESS,
    ] = None,
    mean: Annotated[
        list[str] | None,
        MEAN,
    ] = None,
    std: Annotated[
        list[str] | None,
        STD,
    ] = None,
    size: Annotated[list[int] | None, SIZE] = None,
    crop: Annotated[
        list[float] | None,
        CROP,
    ] = None,
    layout: Annotated[list[LayoutName] | None, LAYOUT] = None,
    channels: Annotated[list[ChannelsName] | None, CHANNELS] = None,
    outputs: Annotated[list[OutputsName] | None, OUTPUTS] = None,
    exits: Annotated[
        int | None,
        typer.Option(min=1, help="How many exits of a bundle or run to keep; default: all."),
    ] = None,
    resize: Annotated[ResizeRule | None, RESIZE] = None,
    agree_with: Annotated[
        Reference | None,
        typer.Option(help="Whose answers stand for labels, if there are none; default: last."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the files'.")] = None,
    version: Version = "1",
    license_: License = "unknown",
    precision: PrecisionOption = "fp32",
    target: TargetOption = "auto",
    graphs: ImportedGraphs = "",
    allow_loss: AllowLoss = False,
    allow_no_saving: AllowNoSaving = False,
) -> None:
    """Make a bundle of ONNX classifiers that you have: an easy image leaves after a cheap one."""
    from exports.bundle.errors import ExportError

    for share in crop or ():
        if not 0 < share <= 1:
            raise ExportError(f"--crop must lie between 0 and 1, not {share:g}.")
    export = export_options(
        name=name,
        version=version,
        license_=license_,
        precision=precision,
        target=target,
        graphs=graphs,
        allow_loss=allow_loss,
    )
    with needs_extra("cascade"):
        from exports.imported.cascade import CascadeOptions, build_cascade
        from exports.imported.multi_exit.source import split_paths
        from exports.imported.normalisation import read_normalisations
        from exports.imported.options import NetworkOptions, network_labels, per_network
    _, files = split_paths(networks, exits)
    count = len(files)
    columns = (
        per_network("--preprocess", preprocess or (), count),
        per_network("--size", size or (), count),
        per_network("--crop", crop or (), count),
        per_network("--layout", [value.value for value in layout or ()], count),
        per_network("--channels", [value.value for value in channels or ()], count),
        per_network("--outputs", [value.value for value in outputs or ()], count),
        per_network("--mean", read_normalisations(mean or (), std or ()), count),
        network_labels(labels or (), count),
    )
    build_cascade(
        networks,
        [NetworkOptions(*row) for row in zip(*columns, strict=True)],
        calibrate,
        output,
        CascadeOptions(exits, resize, agree_with, allow_no_saving),
        export,
        say=typer.echo,
    )
