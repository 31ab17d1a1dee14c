"""The images that no network was trained on: those to calibrate on, and those to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exports.bundle.certificate import Reference, Target
from exports.bundle.errors import ExportError
from exports.bundle.manifest import InputSpec
from exports.photos import list_photos, read_photos
from exports.tuning.certificate import divide
from training.data.dataset import Split
from training.data.load import load_dataset, split_held_out
from training.recipes.schema import DataRecipe


@dataclass(frozen=True)
class EvaluationData:
    """The splits that were not trained on; `counts` has the sizes of train, held_out and test, or of
    calibration and test for images that are no part of the data set.

    Without a test split, `test` is the part of the held-out split on which no temperature is fitted, and its
    count is 0. Under the target `agreement` the labels are the answers of `reference`.
    """

    name: str
    held_out: Split
    test: Split
    counts: dict[str, int]
    target: Target = "labels"
    reference: Reference = "last"


@dataclass(frozen=True)
class EvaluationFolders:
    """Directories with a subfolder of images for each class: `calibrate` in place of the held-out split,
    and `test` in place of the test split."""

    calibrate: Path
    test: Path | None = None


def load_evaluation_data(
    data: DataRecipe,
    root: Path,
    classes: tuple[str, ...],
    path: Path,
    fingerprint: str | None = None,
) -> EvaluationData:
    """What the network in `path`, of `classes`, was not trained on, of the data set that `data` names.

    Raises ExportError if the data set has other classes, or other files than those with the digest
    `fingerprint`. Raises DataError.
    """
    dataset = load_dataset(data, root)
    if dataset.classes != classes:
        raise ExportError(f"{path} was trained on other classes than {dataset.name} has.")
    if not dataset.matches(fingerprint):
        raise ExportError(
            f"{path} was trained on other images than {dataset.name} has now, so its held-out split "
            "is lost: restore the images it was trained on, or train again."
        )
    trained_on, chosen = split_held_out(data, dataset.train.labels)
    held_out = dataset.train.take(chosen)
    counts = {"train": len(trained_on), "held_out": len(held_out), "test": len(dataset.test)}
    return EvaluationData(
        dataset.name, held_out, dataset.test if len(dataset.test) else unfitted(held_out), counts
    )


def read_evaluation_data(
    folders: EvaluationFolders,
    name: str,
    labels: Sequence[str],
    image: InputSpec,
    say: Callable[[str], None],
) -> EvaluationData:
    """The images of `folders`, decoded for the input `image` of a network of `labels` that was trained on the
    data set `name`.

    Raises ExportError if a folder has too few images, or a subfolder the name of no class.
    """
    if image.height != image.width:
        raise ExportError(
            f"--calibrate needs a network for square images, not for {image.width} x {image.height}."
        )

    def read(directory: Path) -> Split:
        folder = list_photos(directory)
        photos = read_photos(folder, image.height, image.resize, labels, say)
        if photos.labels is None:
            raise ExportError(
                f"{directory} has no subfolders with the names of classes, so its images have no labels."
            )
        return Split(photos.images, photos.labels)

    held_out = read(folders.calibrate)
    test = None if folders.test is None else read(folders.test)
    counts = {"calibration": len(held_out), "test": 0 if test is None else len(test)}
    return EvaluationData(name, held_out, test or unfitted(held_out), counts)


def unfitted(held_out: Split) -> Split:
    """The part of the held-out split on which no temperature is fitted."""
    return held_out.take(divide(len(held_out))[1])
