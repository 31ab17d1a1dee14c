"""`offramp front` without its command line: a student learns from a network and is placed before it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from exports.bundle.errors import ExportError
from exports.bundle.manifest import Manifest
from exports.front.answers import UNREADABLE, AnswerCache
from exports.front.calibration import (
    CalibrationImages,
    held_out_images,
    list_calibration,
    read_calibration,
)
from exports.front.large import Large, open_large
from exports.front.plan import (
    MIN_IMAGES,
    AgreementGoal,
    plan_student,
    say_forecast,
    usable,
)
from exports.front.report import accuracy_by_folders, promise
from exports.front.source import trained_source
from exports.imported.options import NetworkOptions
from exports.imported.saving import check_saving
from exports.options import ExportOptions, ResizeRule
from exports.photos import PhotoFolder, label_positions, list_photos, list_tree
from exports.pipeline import write_bundle
from offramp.files import new_directory, write_whole
from training.auto_train import Plan, check_runs, is_trained, train_plan
from training.data.answers import Answers, write_answers
from training.planning.student import StudentChoice

ANSWERS_OF_ALL = "answers"
CHUNKS = "chunks"
KEY_LETTERS = 16


@dataclass(frozen=True)
class FrontOptions:
    """How a front is trained. With `unlabelled` the folders of the images mean nothing. `calibrate` is a
    directory of images to calibrate on, instead of those that training holds out. `epochs` replaces the
    rule's. Runs and answers lie in `runs`; `resume` goes on with the run of a stopped command.
    """

    unlabelled: bool = False
    calibrate: Path | None = None
    goal: AgreementGoal = field(default_factory=AgreementGoal)
    epochs: int | None = None
    runs: Path = Path("runs")
    device: str = "auto"
    resume: bool = False
    allow_no_saving: bool = False


def build_front(
    path: Path,
    network_options: NetworkOptions,
    photos: Path,
    target: Path,
    options: FrontOptions,
    export: ExportOptions,
    *,
    rule: ResizeRule | None = None,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Train a student from the answers of the ONNX classifier `path` to the images in `photos`, and write
    the bundle `target`: the student's stages, then that network, which takes the image.

    The default policy is chosen, and certified if the held-out images or those of `options.calibrate`
    support it, for the same answer as the network's (`options.goal`). Labels are not learnt from: subfolders
    with the names of classes give accuracies, too. The bundle is written completely or not at all.

    Raises ExportError as `build_cascade` does, and if there is no student that is cheap enough or the policy
    saves too little and `options.allow_no_saving` is not set. Raises what `train_plan` raises.
    """
    with new_directory(target) as folder:
        images, large, given = _open(path, network_options, photos, options, rule, say)
        place = options.runs / ANSWERS_OF_ALL / _key(large, images)
        student = _plan(large, images, given, place, options, say)
        answers = _ask(large, images, place, say)
        if len(answers.images) < len(images.files):
            readable = len(answers.images)
            student = plan_student(large, images, readable, place, options.goal, options.epochs)
        _train(student, options, say)
        calibration = _calibration(large, student, images, answers, given, say)
        source, milliseconds = trained_source(
            large, student, answers, calibration, options.runs, say
        )
        goal = options.goal
        written = write_bundle(
            folder,
            source,
            target,
            export,
            say,
            drop=goal.disagreement,
            confidence=goal.confidence,
        )
        sentence = check_saving(
            "front", written, source, path, milliseconds, options.allow_no_saving
        )
        accuracy = accuracy_by_folders(folder, written, calibration, path, say)
    written.report(target, say)
    say(f"{sentence}.")
    if accuracy is not None:
        say(accuracy)
    say(promise(written, path, goal))
    return written.manifest


def forecast_front(
    path: Path,
    network_options: NetworkOptions,
    photos: Path,
    options: FrontOptions,
    *,
    rule: ResizeRule | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Print what `build_front` would do and take; write nothing that stays. Raises what it raises."""
    images, large, given = _open(path, network_options, photos, options, rule, say)
    with TemporaryDirectory() as scratch:
        _plan(large, images, given, Path(scratch), options, say)


def _open(
    path: Path,
    network_options: NetworkOptions,
    photos: Path,
    options: FrontOptions,
    rule: ResizeRule | None,
    say: Callable[[str], None],
) -> tuple[PhotoFolder, Large, PhotoFolder | None]:
    """The images to learn from, the network, and the images to calibrate on if they are others."""
    folder = list_tree(photos) if options.unlabelled else list_photos(photos)
    if folder.classes is None and not options.unlabelled:
        raise ExportError(
            f"{photos} has no subfolders with the names of classes: add --unlabelled."
        )
    large = open_large(path, network_options, folder, rule, say)
    label_positions(folder, large.labels)
    given = None
    if options.calibrate is not None:
        given = list_calibration(options.calibrate, folder, large, options.unlabelled)
    return usable(folder, large.side, say), large, given


def _key(large: Large, images: PhotoFolder) -> str:
    """The name of the directory for the answers of this stage to these images."""
    digest = hashlib.sha256(large.imported.graph.onnx)
    digest.update(f"\0{large.rule}\0{images.directory.resolve()}".encode())
    return digest.hexdigest()[:KEY_LETTERS]


def _plan(
    large: Large,
    images: PhotoFolder,
    given: PhotoFolder | None,
    place: Path,
    options: FrontOptions,
    say: Callable[[str], None],
) -> StudentChoice:
    """The student for all images, with its reasons, what calibrates and the forecast printed. The stage
    that teaches it is written to `place`."""
    count = len(images.files)
    student = plan_student(large, images, count, place, options.goal, options.epochs)
    place.mkdir(parents=True, exist_ok=True)
    write_whole(place / large.path.name, large.imported.graph.onnx)
    say_forecast(large, student, count, options.runs, options.device, say)
    if given is not None:
        say(
            f"{len(given.files):,} images in {given.directory} set temperatures and thresholds and "
            "certify, instead of those held out"
        )
    return student


def _ask(large: Large, images: PhotoFolder, place: Path, say: Callable[[str], None]) -> Answers:
    """The network's answers to the images that can be read, written to `place`."""
    cache = AnswerCache(
        place / CHUNKS, large.path, large.imported.graph.onnx, large.side, large.rule
    )
    found = cache.ask(images.files)
    readable = np.flatnonzero(found != UNREADABLE)
    if len(readable) < len(found):
        first = images.files[int(np.argmax(found == UNREADABLE))]
        say(f"{len(found) - len(readable)} files that cannot be read are passed over: {first} …")
    if len(readable) < MIN_IMAGES:
        raise ExportError(
            f"{len(readable)} images of {images.directory} can be read; at least {MIN_IMAGES} are "
            "needed."
        )
    answers = Answers(
        photos=str(images.directory.resolve()),
        side=large.side,
        resize=large.rule,
        classes=large.labels,
        images=tuple(images.files[n].relative_to(images.directory).as_posix() for n in readable),
        answers=tuple(found[readable].tolist()),
    )
    write_answers(place, answers)
    return answers


def _calibration(
    large: Large,
    student: StudentChoice,
    images: PhotoFolder,
    answers: Answers,
    given: PhotoFolder | None,
    say: Callable[[str], None],
) -> CalibrationImages:
    """The images to calibrate on: those of `given`, else those that training holds out."""
    if given is None:
        return held_out_images(large, student, images, answers)
    return read_calibration(given, large, say)


def _train(student: StudentChoice, options: FrontOptions, say: Callable[[str], None]) -> None:
    """Train the student, unless that is done: a bundle that was refused may be asked for again."""
    recipe = student.recipe
    resume = options.resume or is_trained(options.runs / recipe.name, recipe)
    check_runs([recipe], options.runs, resume)
    train_plan(
        Plan((recipe,), (recipe,), student.reasons),
        runs=options.runs,
        data_root=Path(),
        device=options.device,
        resume=resume,
        say=say,
    )
