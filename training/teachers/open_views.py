"""From a recipe to its cache of views and what fills it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch

from training.assemble import teach_at_crop_side
from training.checkpoint import CheckpointConfig, load_checkpoint
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset
from training.distributed import DistContext
from training.models.multi_exit import Normalize
from training.recipes.network import NetworkRecipe
from training.recipes.schema import Recipe
from training.speed import arithmetic
from training.teachers.cache import ViewCache
from training.teachers.cached_views import CachedViews, taught_on
from training.teachers.classifier import Classifier, NetworkClassifier
from training.teachers.exported import ExportedClassifier
from training.teachers.key import TrainingImages, describe_onnx, describe_run, key_content
from training.teachers.onnx_classifier import OnnxClassifier

VIEWS = "views"
# In the place of the recipe's precision in the key of views that onnxruntime fills.
ONNXRUNTIME = "fp32 by onnxruntime"
# Exporting a network takes as long as onnxruntime saves on a few thousand images.
MIN_IMAGES_TO_EXPORT = 20_000


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
    images = TrainingImages(taught_on(recipe), count, height, width, dataset.fingerprint, pixels)
    device = train.images.device
    cache = view_cache(recipe, images, len(dataset.classes), teacher, runs, device)

    def open_teacher() -> Classifier:
        assert recipe.teacher is not None
        if teacher is None:
            return OnnxClassifier(recipe.teacher, len(dataset.classes), device)
        if by_onnxruntime(cache):
            say("the teacher is exported to ONNX, and onnxruntime fills its views in float32")
        return _open_run(recipe, teacher, runs, (height, width), cache, device)

    return CachedViews(recipe, train, cache, open_teacher, dist, say)


def view_cache(
    recipe: Recipe,
    images: TrainingImages,
    classes: int,
    teacher: CheckpointConfig | None,
    runs: Path,
    device: torch.device,
) -> ViewCache:
    """Where the views of `recipe` lie: with the run that teaches, or in `runs`/views for ONNX classifiers.

    Views of a run by torch and by onnxruntime have different keys, and a cache that was started is continued.
    Raises RecipeError if a file of the teacher cannot be read.
    """
    assert recipe.teacher is not None
    if teacher is None:
        facts = describe_onnx(recipe.teacher)
        return ViewCache(runs / VIEWS, key_content(images, facts, 1, classes))
    assert recipe.teacher.recipe is not None
    directory = runs / recipe.teacher.recipe
    exits = len(teacher.recipe.network.exits)

    def cache(precision: str) -> ViewCache:
        facts = describe_run(directory, teacher, precision)
        return ViewCache(directory / VIEWS, key_content(images, facts, exits, classes))

    by_torch = cache(arithmetic(recipe.train.precision, device))
    if device.type != "cpu" or by_torch.started:
        return by_torch
    exported = cache(ONNXRUNTIME)
    if exported.started:
        return exported
    assert recipe.teacher.views is not None
    enough = images.count * recipe.teacher.views >= MIN_IMAGES_TO_EXPORT
    return exported if enough and _is_faster_exported(teacher.recipe.network) else by_torch


def by_onnxruntime(cache: ViewCache) -> bool:
    """Whether the views of a run in `cache` are filled by onnxruntime."""
    return cache.content["teacher"].get("precision") == ONNXRUNTIME


def _is_faster_exported(network: NetworkRecipe) -> bool:
    """Whether onnxruntime runs `network` faster than torch in bf16 on one thread: where convolutions are
    depthwise 1.5 to 3 times, elsewhere not (docs/guide/training.md)."""
    return network.is_depthwise and importlib.util.find_spec("onnxruntime") is not None


def _open_run(
    recipe: Recipe,
    config: CheckpointConfig,
    runs: Path,
    image_size: tuple[int, int],
    cache: ViewCache,
    device: torch.device,
) -> Classifier:
    assert recipe.teacher is not None
    assert recipe.teacher.recipe is not None
    network, _ = load_checkpoint(runs / recipe.teacher.recipe)
    teach_at_crop_side(network, config)
    normalize = Normalize(config.mean, config.std)
    if by_onnxruntime(cache):
        return ExportedClassifier(network, normalize, image_size)
    return NetworkClassifier(network, normalize, recipe.train.precision, device)
