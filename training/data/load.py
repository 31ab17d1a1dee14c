"""Data sets by their name in a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.answers import load_answers, read_answers
from training.data.cifar import load_cifar100
from training.data.dataset import DATASET_INFO, Dataset, DatasetInfo, hold_out
from training.data.digits import load_digits
from training.data.image_folder import list_images, load_image_folder
from training.data.tiny_imagenet import load_tiny_imagenet
from training.recipes.schema import DataRecipe


def load_dataset(recipe: DataRecipe, root: Path, download: bool = False) -> Dataset:
    """Load the data set that `recipe` names from below `root`.

    Missing files are downloaded if `download`. Raises DataError if files are missing or damaged.
    """
    match recipe.name:
        case "cifar100":
            return load_cifar100(root, download)
        case "tiny-imagenet":
            return load_tiny_imagenet(root, download)
        case "digits":
            return load_digits()
        case "folder":
            assert recipe.path is not None
            assert recipe.side is not None
            return load_image_folder(root / recipe.path, recipe.side)
        case "answers":
            assert recipe.path is not None
            assert recipe.side is not None
            return load_answers(root / recipe.path, recipe.side)


def split_held_out(
    recipe: DataRecipe, labels: NDArray[np.int64], classes: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the samples to train on and of those held out, as `hold_out` chooses them.

    `classes` are the classes' names, for errors. Of "answers" the samples are drawn from all images alike,
    so that the held-out ones are a sample of them.
    """
    if recipe.name == "answers":
        labels, classes = np.zeros_like(labels), ("all images",)
    return hold_out(labels, recipe.held_out, recipe.held_out_seed, classes)


def dataset_info(recipe: DataRecipe, root: Path) -> DatasetInfo:
    """The size of the data set that `recipe` names; only files below `root` are looked at, none decoded.

    Raises DataError as `list_images` and `read_answers` do.
    """
    if recipe.name not in ("folder", "answers"):
        return DATASET_INFO[recipe.name]
    assert recipe.path is not None
    assert recipe.side is not None
    if recipe.name == "answers":
        answers = read_answers(root / recipe.path)
        return DatasetInfo(recipe.side, len(answers.classes), len(answers.images))
    classes = list_images(root / recipe.path).train
    return DatasetInfo(recipe.side, len(classes), sum(map(len, classes.values())))
