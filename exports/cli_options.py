"""Options that the commands which write a bundle share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from exports.bundle.errors import ExportError
from exports.bundle.untrusted.safe_files import one_line
from exports.options import ExportOptions, GraphKind, Int8Target, Precision, PrecisionChoice

Output = Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")]
License = Annotated[
    str,
    typer.Option(
        "--license", help="The licence of the weights for the model card, as the Hub spells it."
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="Type of weights and computation. fp16 is for GPUs and slower on CPUs."),
]
TargetOption = Annotated[
    Int8Target,
    typer.Option(help="int8 type of activations and weights; auto: the faster one here."),
]
AllowLoss = Annotated[
    bool,
    typer.Option("--allow-loss", help="Write it even if the ensemble loses over 0.5 points."),
]

Version = Annotated[str, typer.Option(help="The model's version.")]
ImportedGraphs = Annotated[str, typer.Option(help="Whole-network graphs to add: exits, routed.")]
AllowNoSaving = Annotated[
    bool, typer.Option("--allow-no-saving", help="Write it even if it saves less than 5 %.")
]
# Options about an ONNX classifier: `offramp front` takes one value, `offramp cascade` one a network.
PREPROCESS = typer.Option(
    help="imagenet, zero-one, minus-one-one, or a file; default: one beside it."
)
MEAN = typer.Option(help="Mean of red, green and blue from 0 to 1, as 0.485,0.456,0.406.")
STD = typer.Option(help="Deviation of red, green and blue, as 0.229,0.224,0.225.")
SIZE = typer.Option(min=1, max=4096, help="Side of the input, if it is free.")
CROP = typer.Option(help="Share of the resized image that is seen, as 0.875; default: all.")
LAYOUT = typer.Option(help="Order of axes, if the shape leaves it open.")
CHANNELS = typer.Option(help="Order of colours.")
OUTPUTS = typer.Option(help="What is returned; default: as the values look.")
RESIZE = typer.Option(help="How images of another shape are fitted.")


def export_options(
    *,
    name: str | None,
    version: str | None,
    license_: str,
    precision: PrecisionChoice,
    target: Int8Target,
    graphs: str,
    allow_loss: bool,
) -> ExportOptions:
    """The options as the command line has them; `graphs` are kinds separated by commas.

    Raises ExportError for another kind, for a target without int8, and for a name or a version that a bundle
    cannot have.
    """
    from exports.bundle.schema_types import MAX_NAME, is_file_name

    for option, value in (("--name", name), ("--version", version)):
        if value is not None and not is_file_name(value):
            raise ExportError(
                f"{option} takes at most {MAX_NAME} letters, digits, dots, hyphens and underscores, a letter "
                f"or digit first, not {one_line(value)!r}."
            )
    if target != "auto" and precision != "int8":
        raise ExportError(f"--target {target} is an int8 type; add --precision int8.")
    kinds: list[GraphKind] = []
    for text in filter(None, (part.strip() for part in graphs.split(","))):
        kind = next((known for known in get_args(GraphKind) if known == text), None)
        if kind is None:
            raise ExportError(f"--graphs takes exits, routed and maps, not {text}.")
        if kind not in kinds:
            kinds.append(kind)
    return ExportOptions(name, version, license_, precision, target, tuple(kinds), allow_loss)
