"""A network of several exits, from a bundle or a run, as the beginning of a cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from exports.bundle.errors import ExportError
from exports.bundle.manifest import MANIFEST, InputSpec
from exports.bundle.reader import features_of, load_bundle
from exports.bundle.resolve import resolve_bundle
from exports.graphs.onnx_tools import prune, serialised
from exports.graphs.stage_graph import StageGraph
from exports.imported.labels import Labels
from exports.photos import PhotoFolder
from exports.source import bundle_stages, portable, trained_stages
from offramp.extras import needs_extra
from training.data.image_files import read_images

PACKED = ".zip"
# As `training.checkpoint` writes it, which loads torch.
CHECKPOINT = "checkpoint.json"
# Images on which the stages of a run are compared with torch.
SAMPLE_IMAGES = 16
# What the model card reads of a recipe.
RECIPE_TABLES = ("network", "objective", "train")


@dataclass(frozen=True)
class MultiExitNetwork:
    """Float32 stages, of which the first takes the image `input`. `recipes` are of the networks that begin
    with each stage that takes the image."""

    path: Path
    labels: Labels
    input: InputSpec
    stages: tuple[StageGraph, ...]
    recipes: tuple[dict[str, Any], ...]
    seed: int

    @property
    def side(self) -> int:
        """Height and width of the image."""
        return self.input.height


def is_multi_exit(path: Path) -> bool:
    """Whether `path` is meant as a bundle or a run, and not as an ONNX file."""
    return path.is_dir() or path.suffix == PACKED


def split_paths(paths: Sequence[Path], exits: int | None) -> tuple[Path | None, Sequence[Path]]:
    """The bundle or run that `paths` begin with, if they do, and the ONNX files.

    Raises ExportError for one at another position, for one alone, and for `exits` without one.
    """
    for path in paths[1:]:
        if is_multi_exit(path):
            raise ExportError(
                f"{path} is no ONNX file: a bundle or a run can only be the first network."
            )
    if is_multi_exit(paths[0]):
        if len(paths) == 1:
            raise ExportError(f"{paths[0]} alone is no cascade: name an ONNX file after it.")
        return paths[0], paths[1:]
    if exits is not None:
        raise ExportError(f"--exits is for a bundle or a run, and {paths[0]} is an ONNX file.")
    return None, paths


def read_multi_exit(
    path: Path, exits: int | None, folder: PhotoFolder, say: Callable[[str], None]
) -> MultiExitNetwork:
    """The first `exits` stages of the bundle or the run `path`, by default all. A run is compared with torch
    on images of `folder`.

    Raises ExportError if it has fewer, is no float32, was made of ONNX files, or takes an image that is not
    square. Raises BundleError, CheckpointError, MissingExtraError.
    """
    bundled = path.suffix == PACKED or (path / MANIFEST).exists()
    if not bundled and not (path / CHECKPOINT).exists():
        raise ExportError(f"{path} is neither a bundle nor a finished run.")
    network = _from_bundle(path) if bundled else _from_run(path, folder, say)
    if network.input.height != network.input.width:
        raise ExportError(
            f"{path} takes images of {network.input.width} x {network.input.height} pixels; only square "
            "ones are supported."
        )
    for recipe in network.recipes:
        if not all(isinstance(recipe.get(table), Mapping) for table in RECIPE_TABLES):
            raise ExportError(f"{path} does not say how its networks were trained.")
    count = len(network.stages)
    if exits is not None and exits > count:
        raise ExportError(f"{path} has {count} exits, not {exits}.")
    kept = network.stages[: exits or count]
    networks = sum(stage.input == "image" for stage in kept)
    last = _without_features(kept[-1], len(kept))
    return replace(network, stages=(*kept[:-1], last), recipes=network.recipes[:networks])


def _from_bundle(path: Path) -> MultiExitNetwork:
    bundle = load_bundle(resolve_bundle(str(path)))
    manifest, origin = bundle.manifest, bundle.manifest.provenance
    if manifest.precision != "fp32":
        raise ExportError(
            f"{path} is in {manifest.precision}: name the float32 bundle it comes from, and --precision."
        )
    if origin.imported:
        raise ExportError(f"{path} is made of ONNX files itself: name these.")
    return MultiExitNetwork(
        path,
        manifest.labels,
        manifest.input,
        bundle_stages(bundle),
        # The figures of the cascade are not those of a refit: they are measured on other images.
        tuple(recipe | {"refit": None} for recipe in (origin.recipe, *origin.followers)),
        origin.seed,
    )


def _from_run(path: Path, folder: PhotoFolder, say: Callable[[str], None]) -> MultiExitNetwork:
    with needs_extra("train"):
        from exports.cascade import load_cascade
        from training.checkpoint import CONFIG
        from training.recipes.refit import REFIT
    refit = path / REFIT
    runs = load_cascade(refit if (refit / CONFIG).is_file() else path)
    config = runs[0].config
    height, width = config.image_size
    images = read_images(folder.files[:SAMPLE_IMAGES], height, "").pixels
    if not len(images):
        raise ExportError(
            f"none of the first {SAMPLE_IMAGES} images of {folder.directory} can be read."
        )
    return MultiExitNetwork(
        path,
        config.classes,
        InputSpec(height=height, width=width),
        trained_stages(runs, images, say) if height == width else (),
        tuple(portable(run.config.recipe) | {"refit": None} for run in runs),
        config.recipe.seed,
    )


def _without_features(stage: StageGraph, number: int) -> StageGraph:
    """Stage `number` without output features, which the stage after it does not take."""
    if stage.feature_shape is None:
        return stage
    model = onnx.load_from_string(stage.onnx)
    outputs = [one for one in model.graph.output if one.name != features_of(number)]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return replace(stage, onnx=serialised(prune(model)), feature_shape=None)
