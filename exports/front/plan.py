"""What `offramp front` is going to do: which images, which student, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exports.bundle.errors import ExportError
from exports.bundle.manifest import MAX_TABLE_LOGITS
from exports.front.large import Large
from exports.photos import PhotoFolder
from exports.tuning.certificate import samples_for, samples_needed
from training.auto_train import fetch_weights, is_trained, run_name
from training.data.dataset import DatasetInfo
from training.data.survey import survey_files
from training.planning.forecast import forecast
from training.planning.student import Given, StudentChoice, choose_student
from training.report import clock

# Fewer teach a student nothing.
MIN_IMAGES = 100
# Of the pixels of all images, which training holds three times.
MAX_IMAGE_BYTES = 2 << 30
MAX_HELD_OUT_SHARE = 1 / 3


@dataclass(frozen=True)
class AgreementGoal:
    """The bundle is to give the same answer as the network in at least the share `agreement` of cases,
    with the probability `confidence`."""

    agreement: float = 0.99
    confidence: float = 0.95

    @property
    def disagreement(self) -> float:
        """The share of answers that may differ."""
        return round(1 - self.agreement, 9)


def usable(folder: PhotoFolder, side: int, say: Callable[[str], None]) -> PhotoFolder:
    """The images of `folder` that are used: all, or as many as fit into memory, spread over the folder.

    Raises ExportError if there are fewer than MIN_IMAGES, or if a name cannot be written as JSON.
    """
    for path in (folder.directory.resolve(), *folder.files):
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ExportError(f"the name of {str(path)!a} is not UTF-8: rename it.") from error
    count, most = len(folder.files), MAX_IMAGE_BYTES // (3 * side * side)
    if count < MIN_IMAGES:
        raise ExportError(
            f"{folder.directory} has {count} images; at least {MIN_IMAGES} are needed to train a front."
        )
    if count > most:
        say(
            f"{most:,} of the {count:,} images are used: at {side} x {side} pixels more of them take over "
            f"{MAX_IMAGE_BYTES >> 30} GiB of memory each time that they are held"
        )
    return folder.sample(most)


def held_out_count(images: int, classes: int, goal: AgreementGoal) -> int:
    """How many images are held out of training.

    Enough to certify a front that disagrees half as often as `goal` permits, but at most a third of `images`,
    and what a calibration table holds.
    """
    needed = samples_needed(goal.disagreement / 2, 0.0, goal.disagreement, goal.confidence)
    most = min(int(MAX_HELD_OUT_SHARE * images), MAX_TABLE_LOGITS // (8 * classes))
    return most if needed is None else min(samples_for(needed), most)


def plan_student(
    large: Large,
    folder: PhotoFolder,
    images: int,
    place: Path,
    goal: AgreementGoal,
    epochs: int | None,
) -> StudentChoice:
    """The student for `images` readable images of `folder`. The directory `place` is for the answers that
    it learns from, and for the stage of `large`, which gives them. Raises RecipeError, DataError."""
    side, enlarged_from = survey_files(list(folder.files), folder.directory)
    given = Given(
        data=str(place.resolve()),
        images=images,
        held_out=held_out_count(images, len(large.labels), goal),
        side=large.side,
        content=side if enlarged_from is None else min(side, enlarged_from),
        network=str(place.resolve() / large.path.name),
        classes=len(large.labels),
        macs=large.imported.graph.macs,
    )
    return choose_student(run_name(f"{large.path.stem}-front"), given, epochs=epochs)


def say_forecast(
    large: Large,
    student: StudentChoice,
    images: int,
    runs: Path,
    device: str,
    say: Callable[[str], None],
) -> None:
    """Print the student's reasons and what answers and training will take, unless it is trained already;
    write nothing.

    Raises RecipeError or MissingExtraError if its first weights are unavailable.
    """
    for reason in student.reasons:
        say(f"- {reason}")
    if is_trained(runs / student.recipe.name, student.recipe):
        return
    fetch_weights(student.recipe)
    seconds = images * large.milliseconds / 1e3
    say(
        f"forecast: the answers of {large.path.name} to {images:,} images take about {clock(seconds)} on "
        "one thread, unless they are kept from before"
    )
    info = DatasetInfo(large.side, len(large.labels), images)
    recipe = student.recipe
    say(str(forecast([recipe], info, earlier=[recipe], runs=runs, device=device)))
