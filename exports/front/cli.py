"""`offramp front`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    PrecisionOption,
    TargetOption,
    Version,
    export_options,
)
from exports.options import Channels, Layout, Outputs, ResizeRule
from offramp.extras import needs_extra


def front(
    network: Annotated[Path, typer.Argument(help="An ONNX classifier.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Images: a subfolder for each class; with --unlabelled any tree of folders."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The bundle to write; not needed with --dry-run.",
            show_default=False,
        ),
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="The names of the folders mean nothing.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Images like those to come, which neither network was trained on, to choose and certify the "
            "policy on; default: images of --data that are held out."
        ),
    ] = None,
    agreement: Annotated[
        float, typer.Option(help="Least share of cases with the same answer as the network's.")
    ] = 0.99,
    confidence: Annotated[
        float, typer.Option(help="Probability that this holds on new images.")
    ] = 0.95,
    labels: Annotated[
        Path | None, typer.Option(help="Class names in the order of the outputs.")
    ] = None,
    preprocess: Annotated[
        str | None,
        PREPROCESS,
    ] = None,
    mean: Annotated[
        str | None,
        MEAN,
    ] = None,
    std: Annotated[
        str | None,
        STD,
    ] = None,
    size: Annotated[int | None, SIZE] = None,
    crop: Annotated[
        float | None,
        CROP,
    ] = None,
    layout: Annotated[Layout | None, LAYOUT] = None,
    channels: Annotated[Channels | None, CHANNELS] = None,
    outputs: Annotated[Outputs | None, OUTPUTS] = None,
    resize: Annotated[ResizeRule | None, RESIZE] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of training; default: by the images.")
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Directory of runs, for the training and the network's answers.")
    ] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Resume a stopped command.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would do and take; write nothing.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the file's.")] = None,
    version: Version = "1",
    license_: License = "unknown",
    precision: PrecisionOption = "fp32",
    target: TargetOption = "auto",
    graphs: ImportedGraphs = "",
    allow_loss: AllowLoss = False,
    allow_no_saving: AllowNoSaving = False,
) -> None:
    """Train a small network from the answers of an ONNX classifier, and place it before that."""
    from exports.bundle.errors import ExportError
    from training.errors import StoppedError

    for option, share, least in (
        ("--crop", crop, 0.0),
        ("--agreement", agreement, 0.5),
        ("--confidence", confidence, 0.5),
    ):
        most = 1.0 if option == "--crop" else 0.9999
        if share is not None and not least < share <= most:
            raise ExportError(
                f"{option} must be more than {least:g} and at most {most:g}, not {share:g}."
            )
    if output is None and not dry_run:
        raise ExportError("name the bundle to write: -o BUNDLE.")
    export = export_options(
        name=name,
        version=version,
        license_=license_,
        precision=precision,
        target=target,
        graphs=graphs,
        allow_loss=allow_loss,
    )
    with needs_extra("train"):
        from exports.front.build import FrontOptions, build_front, forecast_front
        from exports.front.plan import AgreementGoal
        from exports.imported.labels import read_labels
        from exports.imported.normalisation import read_normalisations
        from exports.imported.options import NetworkOptions
    normalisations = read_normalisations(
        [] if mean is None else [mean], [] if std is None else [std]
    )
    network_options = NetworkOptions(
        preprocess=preprocess,
        side=size,
        crop=crop,
        layout=layout,
        channels=channels,
        outputs=outputs,
        normalisation=next(iter(normalisations), None),
        labels=None if labels is None else read_labels(labels),
    )
    options = FrontOptions(
        unlabelled=unlabelled,
        calibrate=calibrate,
        goal=AgreementGoal(agreement, confidence),
        epochs=epochs,
        runs=runs,
        device=device,
        resume=resume,
        allow_no_saving=allow_no_saving,
    )
    if output is None or dry_run:
        forecast_front(network, network_options, data, options, rule=resize, say=typer.echo)
        return
    try:
        build_front(
            network, network_options, data, output, options, export, rule=resize, say=typer.echo
        )
    except KeyboardInterrupt:
        raise StoppedError("stopped; add --resume to the same command to go on.") from None
