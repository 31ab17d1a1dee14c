"""What the networks of a cascade consist of, what they cost, and what is odd about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.certificate import REFERENCE_NAMES
from exports.bundle.errors import ExportError
from exports.bundle.manifest import InputSpec, Manifest
from exports.evaluation_data import EvaluationData
from exports.graphs.stage_graph import StageGraph
from exports.imported.labels import Labels
from exports.source import Source, tool_versions
from exports.stage_runner import StageRunner

# An accuracy below this multiple of a guess's is reported.
NEAR_CHANCE = 1.5
# Fewer than `offramp tune --cost ms` takes: these times are reported, and nothing is chosen by them.
TIMED_ROUNDS = 20


@dataclass(frozen=True)
class Part:
    """The stages of one file, bundle or run, and the recipe of each network in them."""

    path: Path
    stages: tuple[StageGraph, ...]
    recipes: tuple[dict[str, Any], ...]


def stage_milliseconds(stages: Sequence[StageGraph], image: NDArray[np.uint8]) -> tuple[float, ...]:
    """The time of each of `stages` for one image uint8 [1, S, S, 3] on one thread of this machine."""
    runner = StageRunner([stage.onnx for stage in stages], threads=1)
    return runner.stage_milliseconds(image, rounds=TIMED_ROUNDS)


def imported_source(
    name: str,
    labels: Labels,
    image: InputSpec,
    stages: tuple[StageGraph, ...],
    data: EvaluationData,
    recipes: Sequence[dict[str, Any]],
    seed: int,
) -> Source:
    """`stages`, of which some are of ONNX files, as the source of an export that is calibrated on `data`;
    `recipes` are of their networks in order."""
    return Source(
        name=name,
        version="1",
        labels=labels,
        input=image,
        stages=stages,
        calibrated=stages,
        data=data,
        recipe=recipes[0],
        followers=tuple(recipes[1:]),
        seed=seed,
        tools=tool_versions(),
    )


def check_order(
    parts: Sequence[Part], milliseconds: Sequence[float], say: Callable[[str], None]
) -> None:
    """Say what every part costs. Raise ExportError unless that is more MACs than the one before; say so
    if the times on this machine are in another order."""
    times = iter(milliseconds)
    macs, ms = [], []
    for part in parts:
        macs.append(sum(stage.macs for stage in part.stages))
        ms.append(sum(next(times) for _ in part.stages))
        params = sum(stage.params for stage in part.stages)
        say(
            f"{part.path}: {macs[-1] / 1e6:.4g} M MACs, {params / 1e6:.3g} M parameters, "
            f"{ms[-1]:.3g} ms for one image on one thread here"
        )
    for k, (before, after) in enumerate(pairwise(parts)):
        if macs[k] >= macs[k + 1]:
            raise ExportError(
                f"{before.path} costs {macs[k] / 1e6:.4g} M MACs, no less than {after.path} with "
                f"{macs[k + 1] / 1e6:.4g} M: name the cheapest network first."
            )
        if ms[k] >= ms[k + 1]:
            say(
                f"{before.path} has fewer MACs than {after.path}, but is not faster here: "
                "`offramp tune --cost ms` minimises milliseconds."
            )


def say_what_is_near_chance(
    manifest: Manifest, parts: Sequence[Part], say: Callable[[str], None]
) -> None:
    """Say which networks are hardly better than a guess, as with wrong labels or wrong colours."""
    guess = 100 / len(manifest.labels)
    labelled = manifest.calibration.target == "labels"
    does = (
        "is right on"
        if labelled
        else f"agrees with the {REFERENCE_NAMES[manifest.calibration.reference]} on"
    )
    ends = accumulate(len(part.stages) for part in parts)
    for part, end in zip(parts, ends, strict=True):
        single = manifest.exits[end - 1].held_out.single
        if single < NEAR_CHANCE * guess:
            say(
                f"{part.path} {does} {single:.1f} % of the images, and a guess on {guess:.1f} %: check its "
                "labels, --preprocess and --channels."
            )
