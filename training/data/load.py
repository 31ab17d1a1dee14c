"""Data sets by their name in a recipe."""

from __future__ import annotations

from pathlib import Path

from training.data.cifar import load_cifar100
from training.data.dataset import Dataset
from training.data.dataset_info import DATASET_INFO, DatasetInfo
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


def dataset_info(recipe: DataRecipe, root: Path) -> DatasetInfo:
    """The size of the data set that `recipe` names; only an image folder is looked at, below `root`.

    Raises DataError as `list_images` does.
    """
    if recipe.name != "folder":
        return DATASET_INFO[recipe.name]
    assert recipe.path is not None
    assert recipe.side is not None
    classes = list_images(root / recipe.path).train
    return DatasetInfo(recipe.side, len(classes), sum(map(len, classes.values())))
