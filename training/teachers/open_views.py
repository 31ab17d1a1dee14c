"""From a recipe to its cache of views and what fills it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from training.assemble import teach_at_crop_side
from training.checkpoint import CheckpointConfig, load_checkpoint
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset
from training.distributed import DistContext
from training.models.multi_exit import Normalize
from training.recipes.schema import Recipe
from training.teachers.cache import ViewCache
from training.teachers.cached_views import CachedViews
from training.teachers.classifier import Classifier, NetworkClassifier
from training.teachers.key import TrainingImages, describe_onnx, describe_run, key_content
from training.teachers.onnx_classifier import OnnxClassifier

VIEWS = "views"


def open_views(
    recipe: Recipe,
    dataset: Dataset,
    teacher: CheckpointConfig | None,
    train: DeviceDataset,
    runs: Path,
    dist: DistContext,
    say: Callable[[str], None],
) -> CachedViews | None:
    """The views that `recipe` trains on, or None if its teacher runs online or it has none.

    `teacher` is the config of the run that teaches, None for ONNX classifiers. Raises RecipeError if a
    file of the teacher cannot be read.
    """
    if recipe.teacher is None or recipe.teacher.views is None:
        return None
    count, height, width, _ = train.images.shape
    pixels = None
    if dataset.fingerprint is not None:
        pixels = hashlib.sha256(train.images.cpu().numpy().data).hexdigest()
    images = TrainingImages(recipe.data, count, height, width, dataset.fingerprint, pixels)
    cache = view_cache(recipe, images, len(dataset.classes), teacher, runs)

    def open_teacher() -> Classifier:
        return _open_teacher(recipe, teacher, runs, len(dataset.classes), train.images.device)

    return CachedViews(recipe, train, cache, open_teacher, dist, say)


def view_cache(
    recipe: Recipe,
    images: TrainingImages,
    classes: int,
    teacher: CheckpointConfig | None,
    runs: Path,
) -> ViewCache:
    """Where the views of `recipe` lie: with the run that teaches, or in `runs`/views for ONNX classifiers.

    Raises RecipeError if a file of the teacher cannot be read.
    """
    assert recipe.teacher is not None
    if teacher is None:
        facts, exits, root = describe_onnx(recipe.teacher), 1, runs / VIEWS
    else:
        assert recipe.teacher.recipe is not None
        directory = runs / recipe.teacher.recipe
        facts = describe_run(directory, teacher, recipe.train.precision)
        exits, root = len(teacher.recipe.network.exits), directory / VIEWS
    return ViewCache(root, key_content(images, facts, exits, classes))


def _open_teacher(
    recipe: Recipe,
    config: CheckpointConfig | None,
    runs: Path,
    classes: int,
    device: torch.device,
) -> Classifier:
    assert recipe.teacher is not None
    if config is None:
        return OnnxClassifier(recipe.teacher, classes, device)
    assert recipe.teacher.recipe is not None
    network, _ = load_checkpoint(runs / recipe.teacher.recipe)
    teach_at_crop_side(network, config)
    normalize = Normalize(config.mean, config.std)
    return NetworkClassifier(network, normalize, recipe.train.precision, device)
