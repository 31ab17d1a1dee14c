"""Images with the answers of a network in place of labels.

DIRECTORY/answers.json says where the images are, how they are brought to their side, and the class that the
network names for each. `offramp front` writes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from offramp.file_names import is_utf8, shown_name
from offramp.files import write_whole
from offramp.validation import first_problem
from training.data.dataset import Dataset, Split, channel_statistics
from training.data.image_files import ResizeRule, read_images
from training.errors import DataError

ANSWERS = "answers.json"
# Earlier versions wrote it as `pictures`.
Images = Annotated[
    tuple[str, ...], Field(min_length=1, validation_alias=AliasChoices("images", "pictures"))
]


class Answers(BaseModel):
    """The content of answers.json: for each of `images`, which are paths below the directory `photos`, the
    position in `classes` of the network's answer. Images are brought to `side` pixels by the rule `resize`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    photos: str
    side: Annotated[int, Field(gt=0)]
    resize: ResizeRule
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    images: Images
    answers: tuple[Annotated[int, Field(ge=0)], ...]

    def paths(self, positions: Sequence[int]) -> list[Path]:
        """The files of the images at `positions`."""
        return [Path(self.photos, self.images[position]) for position in positions]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the paths and answers, in order; the held-out split depends on nothing else."""
        digest = hashlib.sha256()
        for image, answer in zip(self.images, self.answers, strict=True):
            digest.update(f"{answer} ".encode() + os.fsencode(image) + b"\0")
        return digest.hexdigest()


def write_answers(directory: Path, answers: Answers) -> None:
    """Write answers.json into `directory` in one step.

    Raises WriteError, and DataError for an image whose name cannot be written as text.
    """
    for image in answers.images:
        if not is_utf8(image):
            name = shown_name(Path(answers.photos, image))
            raise DataError(f"{name} has a name that is not UTF-8; rename it.")
    write_whole(directory / ANSWERS, answers.model_dump_json().encode())


def read_answers(directory: Path) -> Answers:
    """Read answers.json in `directory`. Raises DataError if it is missing or not valid."""
    path = directory / ANSWERS
    try:
        answers = Answers.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise DataError(f"{path} is not valid: {first_problem(error)}.") from error
    if len(answers.answers) != len(answers.images) or max(answers.answers) >= len(answers.classes):
        raise DataError(f"{path} is not valid: every image needs the answer of one class.")
    return answers


def load_answers(directory: Path, side: int) -> Dataset:
    """The images of answers.json in `directory`, with the answers as labels and without a test split.

    Raises DataError if the file is not valid, is of another `side`, or if an image cannot be read: it
    could when the network was asked.
    """
    answers = read_answers(directory)
    if answers.side != side:
        raise DataError(f"{directory / ANSWERS} is of {answers.side} pixels, not of {side}.")
    name = Path(answers.photos).name
    paths = answers.paths(range(len(answers.images)))
    read = read_images(paths, side, f"reading {name}", answers.resize)
    if read.failures:
        raise next(iter(read.failures.values()))
    mean, std = channel_statistics(read.pixels)
    return Dataset(
        name=name,
        train=Split(read.pixels, np.array(answers.answers, np.int64)),
        test=Split(read.pixels[:0], np.empty(0, np.int64)),
        classes=answers.classes,
        mean=mean,
        std=std,
        fingerprint=answers.fingerprint,
    )
