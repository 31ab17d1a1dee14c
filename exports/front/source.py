"""The trained student and the given network as the source of an export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from exports.bundle.errors import ExportError
from exports.bundle.manifest import InputSpec
from exports.cascade import TrainedRun
from exports.front.calibration import CalibrationImages
from exports.front.large import Large
from exports.imported.calibration import calibration_data
from exports.imported.cascade import recipe_of
from exports.imported.parts import imported_source, stage_milliseconds
from exports.source import Source, bundle_name, portable, trained_stages
from training.checkpoint import load_checkpoint
from training.data.answers import Answers
from training.data.load import split_held_out
from training.planning.student import StudentChoice


def trained_source(
    large: Large,
    student: StudentChoice,
    answers: Answers,
    calibration: CalibrationImages,
    runs: Path,
    say: Callable[[str], None],
) -> tuple[Source, tuple[float, ...]]:
    """The trained student and the network as a source of an export that is calibrated on `calibration`, and
    the milliseconds of each stage."""
    recipe = student.recipe
    network, config = load_checkpoint(runs / recipe.name)
    if config.fingerprint != answers.fingerprint:
        raise ExportError(
            f"{runs / recipe.name} was trained on other images than {answers.photos} has now: move "
            "it away to train again."
        )
    trained_on, _ = split_held_out(recipe.data, np.array(answers.answers, np.int64))
    images = calibration.photos.images
    stages = trained_stages([TrainedRun(network, config)], images, say)
    stages = (*stages, large.imported.graph)
    unlabelled = replace(calibration.photos, labels=None)
    graphs = [stage.onnx for stage in stages]
    data = calibration_data(calibration.name, unlabelled, graphs, "last")
    source = imported_source(
        bundle_name(f"{large.path.stem}-front"),
        large.labels,
        InputSpec(height=large.side, width=large.side, resize=large.rule),
        stages,
        replace(data, counts=data.counts | {"train": len(trained_on)}),
        [portable(recipe), recipe_of(large.imported)],
        recipe.seed,
    )
    source = replace(source, tools=source.tools | {"torch": config.tools["torch"]})
    return source, stage_milliseconds(stages, images[:1])
