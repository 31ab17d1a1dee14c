"""`offramp cascade`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from exports.cli_options import Precision, Target, graph_kinds
from offramp.extras import needs_extra

ResizeRule = Literal["center_crop", "stretch"]


class Layout(enum.StrEnum):
    """The order of the axes of a network's input."""

    NCHW = "nchw"
    NHWC = "nhwc"


class Channels(enum.StrEnum):
    """The order of the colours of a network's input."""

    RGB = "rgb"
    BGR = "bgr"


class Outputs(enum.StrEnum):
    """What a network returns."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


def cascade(
    networks: Annotated[list[Path], typer.Argument(help="ONNX classifiers, the cheapest first.")],
    calibrate: Annotated[
        Path,
        typer.Option(help="Images: a subfolder for each class, or without labels in none."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")],
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Class names in the order of the outputs: one file, or one a network."),
    ] = None,
    preprocess: Annotated[
        list[str] | None,
        typer.Option(help="imagenet, zero-one, minus-one-one, or a file; default: one beside it."),
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(min=1, max=4096, help="Side of the input, if it is free.")
    ] = None,
    crop: Annotated[
        list[float] | None,
        typer.Option(help="Share of the resized image that is seen, as 0.875; default: all."),
    ] = None,
    layout: Annotated[
        list[Layout] | None, typer.Option(help="Order of axes, if the shape leaves it open.")
    ] = None,
    channels: Annotated[list[Channels] | None, typer.Option(help="Order of colours.")] = None,
    outputs: Annotated[
        list[Outputs] | None, typer.Option(help="What is returned; default: as the values look.")
    ] = None,
    resize: Annotated[
        ResizeRule | None, typer.Option(help="How images of another shape are fitted.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the files'.")] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "1",
    license_: Annotated[
        str, typer.Option("--license", help="The licence of the weights for the model card.")
    ] = "unknown",
    precision: Annotated[Precision, typer.Option(help="As of `offramp export`.")] = "fp32",
    target: Annotated[Target, typer.Option(help="As of `offramp export`.")] = "auto",
    graphs: Annotated[str, typer.Option(help="Whole-network graphs to add: exits, routed.")] = "",
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Write it even if the precision costs over 0.5 points."),
    ] = False,
    allow_no_saving: Annotated[
        bool,
        typer.Option("--allow-no-saving", help="Write it even if it saves less than 5 %."),
    ] = False,
) -> None:
    """Make a bundle of ONNX classifiers that you have: an easy image leaves after a cheap one."""
    from exports.bundle.errors import ExportError

    for share in crop or ():
        if not 0 < share <= 1:
            raise ExportError(f"--crop must lie between 0 and 1, not {share:g}.")
    kinds: Any = graph_kinds(graphs, precision, target)
    with needs_extra("cascade"):
        from exports.imported.cascade import build_cascade
        from exports.imported.options import NetworkOptions, network_labels, per_network
    count = len(networks)
    columns = (
        per_network("--preprocess", preprocess or (), count),
        per_network("--size", size or (), count),
        per_network("--crop", crop or (), count),
        per_network("--layout", [value.value for value in layout or ()], count),
        per_network("--channels", [value.value for value in channels or ()], count),
        per_network("--outputs", [value.value for value in outputs or ()], count),
        network_labels(labels or (), count),
    )
    build_cascade(
        networks,
        [NetworkOptions(*row) for row in zip(*columns, strict=True)],
        calibrate,
        output,
        rule=resize,
        name=name,
        version=version,
        license_=license_,
        precision=precision,
        scheme=target,
        graphs=kinds,
        allow_loss=allow_loss,
        allow_no_saving=allow_no_saving,
        say=typer.echo,
    )
