"""Options that `offramp export` and `offramp cascade` share."""

from __future__ import annotations

from typing import Literal, get_args

from exports.bundle.errors import ExportError

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["auto", "u8s8", "s8s8"]
Graphs = Literal["exits", "routed", "maps"]


def graph_kinds(text: str, precision: Precision, target: Target) -> tuple[str, ...]:
    """The kinds of whole-network graphs in `text`, separated by commas.

    Raises ExportError for another kind, and for a target without int8.
    """
    if target != "auto" and precision != "int8":
        raise ExportError(f"--target {target} is an int8 type; add --precision int8.")
    kinds = tuple(dict.fromkeys(kind.strip() for kind in text.split(",") if kind.strip()))
    for kind in kinds:
        if kind not in get_args(Graphs):
            raise ExportError(f"--graphs takes exits, routed and maps, not {kind}.")
    return kinds
