"""The source of an export: the checkpoint of a finished run, or a float32 bundle.

Both provide float32 stages with their cost, and the data set they were trained on. Only a checkpoint
needs torch.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from exports.bundle.errors import ExportError
from exports.bundle.manifest import MANIFEST, InputSpec
from exports.bundle.reader import Bundle, load_bundle, load_table
from exports.bundle.schema_types import MAX_NAME
from exports.evaluation_data import (
    EvaluationData,
    EvaluationFolders,
    load_evaluation_data,
    read_evaluation_data,
)
from exports.graphs.onnx_tools import serialised
from exports.graphs.stage_graph import StageGraph
from exports.graphs.upsample import resizes_as_products
from exports.options import Precision
from exports.stage_runner import StageRunner
from offramp import __version__
from offramp.extras import needs_extra
from training.recipes.network import LiteNetwork
from training.recipes.schema import DataRecipe, Recipe

if TYPE_CHECKING:
    from exports.cascade import TrainedRun


@dataclass(frozen=True)
class Source:
    """A float32 network as stages, its data and its origin.

    `stages` are those to serve. `calibrated` have not seen the held-out split; they are others only if
    `stages` are of a refit. `recipe` is of the network of stage 1, `followers` are those of the networks
    after it; they have no directories of the machine that trained them. `reject_below` is that of a
    bundle's policy, `precision` the one that `auto` tries.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    input: InputSpec
    stages: tuple[StageGraph, ...]
    calibrated: tuple[StageGraph, ...]
    data: EvaluationData
    recipe: dict[str, Any]
    followers: tuple[dict[str, Any], ...]
    seed: int
    tools: dict[str, str]
    reject_below: float | None = None
    precision: Precision = "fp32"


def open_source(
    path: Path,
    data_root: Path,
    say: Callable[[str], None],
    folders: EvaluationFolders | None = None,
) -> Source:
    """Read the checkpoint or the float32 bundle in directory `path`, and its data under `data_root`, or the
    images of `folders` instead.

    With a checkpoint come those of the runs that follow it (`followed_by`), from the same directory of
    runs. A checkpoint's stages are compared with torch. Raises ExportError, BundleError, CheckpointError
    or DataError.
    """
    if (path / MANIFEST).exists():
        return _from_bundle(path, data_root, say, folders)
    return _from_checkpoint(path, data_root, say, folders)


def _from_bundle(
    path: Path, data_root: Path, say: Callable[[str], None], folders: EvaluationFolders | None
) -> Source:
    bundle = load_bundle(path)
    manifest, origin = bundle.manifest, bundle.manifest.provenance
    if manifest.precision != "fp32":
        raise ExportError(
            f"{path} is in {manifest.precision} already; convert the float32 bundle it comes from."
        )
    if origin.imported:
        command = "front" if (origin.recipe.get("teacher") or {}).get("onnx") else "cascade"
        raise ExportError(
            f"{path} is made of ONNX files: make it again with `offramp {command} --precision`."
        )
    if folders is not None:
        data = read_evaluation_data(folders, origin.dataset, manifest.labels, manifest.input, say)
    else:
        data = _data_of_bundle(bundle, data_root)
    stages = bundle_stages(bundle)
    return Source(
        name=manifest.name,
        version=manifest.version,
        labels=manifest.labels,
        input=manifest.input,
        stages=stages,
        calibrated=stages,
        data=data,
        recipe=_as_evaluated(origin.recipe, folders),
        followers=tuple(_as_evaluated(recipe, folders) for recipe in origin.followers),
        seed=origin.seed,
        tools=origin.tools | tool_versions(),
        reject_below=bundle.policy.reject_below,
    )


def _data_of_bundle(bundle: Bundle, root: Path) -> EvaluationData:
    """What the network of `bundle` was not trained on, of the data set that its recipe names."""
    path, manifest = bundle.path, bundle.manifest
    if manifest.provenance.refit:
        raise ExportError(
            f"the weights in {path} were trained on its held-out split, so another precision cannot be "
            "calibrated on it: export the run instead, or give other images with --calibrate."
        )
    try:
        recipe = DataRecipe.model_validate(manifest.provenance.recipe.get("data"))
    except ValidationError as error:
        raise ExportError(f"{path} does not say which data it was trained on.") from error
    data = load_evaluation_data(recipe, root, manifest.labels, path)
    if not np.array_equal(data.held_out.labels, load_table(path, manifest).labels):
        raise ExportError(
            f"{path} was calibrated on other samples than {data.name} under {root} holds out; if on those of "
            "a folder, give it again with --calibrate."
        )
    return data


def _as_evaluated(recipe: dict[str, Any], folders: EvaluationFolders | None) -> dict[str, Any]:
    """The recipe for the manifest. No figure is of the weights before a refit if other images were given."""
    return recipe if folders is None else recipe | {"refit": None}


def bundle_stages(bundle: Bundle) -> tuple[StageGraph, ...]:
    """The stages of the float32 `bundle` as this version exports them, each with its own cost."""
    macs = params = 0
    stages = []
    for content, entry in zip(bundle.stages, bundle.manifest.exits, strict=True):
        stage_macs, stage_params = entry.macs - macs, entry.params - params
        graph = _modernised(content)
        stages.append(StageGraph(graph, entry.input, stage_macs, stage_params, entry.feature_shape))
        macs, params = entry.macs, entry.params
    return tuple(stages)


def _from_checkpoint(
    path: Path, data_root: Path, say: Callable[[str], None], folders: EvaluationFolders | None
) -> Source:
    with needs_extra("train"):
        import torch

        from exports.cascade import load_cascade
        from training.checkpoint import CONFIG
        from training.recipes.refit import REFIT
    runs = load_cascade(path)
    config = runs[0].config
    recipe = config.recipe
    image = InputSpec(height=config.image_size[0], width=config.image_size[1])
    if recipe.refit and not (path / REFIT / CONFIG).is_file():
        raise ExportError(
            f"the refit of {path} is not finished: train with --resume, or without a refit."
        )
    if folders is not None:
        name = Path(recipe.data.path or recipe.data.name).name
        data = read_evaluation_data(folders, name, config.classes, image, say)
    elif recipe.data.held_out:
        data = load_evaluation_data(
            recipe.data, data_root, config.classes, path, config.fingerprint
        )
    else:
        raise ExportError(
            f"{path} held out no images to choose thresholds on: export {path.parent}, or give other "
            "images with --calibrate."
        )
    images = data.held_out.images
    served = load_cascade(path / REFIT) if recipe.refit else runs
    stages = calibrated = trained_stages(served, images, say)
    if served is not runs and folders is None:
        calibrated = trained_stages(runs, images, say)
    return Source(
        name=bundle_name(recipe.name),
        version="1",
        labels=config.classes,
        input=image,
        stages=stages,
        calibrated=calibrated,
        data=data,
        recipe=_as_evaluated(portable(recipe), folders),
        followers=tuple(_as_evaluated(portable(run.config.recipe), folders) for run in runs[1:]),
        seed=recipe.seed,
        tools=tool_versions() | {"torch": torch.__version__},
        precision="int8" if all(made_for_int8(run.config.recipe) for run in runs) else "fp32",
    )


def made_for_int8(recipe: Recipe) -> bool:
    """Whether the network keeps its accuracy in int8: EfficientNet-Lite has no squeeze-and-excitation and no
    swish, so that it does."""
    return recipe.network.name in get_args(LiteNetwork)


def trained_stages(
    runs: Sequence[TrainedRun], images: NDArray[np.uint8], say: Callable[[str], None]
) -> tuple[StageGraph, ...]:
    """The stages of `runs` in a row, compared with torch on `images`. Raises ExportError if one differs."""
    from exports.graphs.stages import export_stages
    from exports.verify import verify
    from training.models.multi_exit import Normalize

    stages: list[StageGraph] = []
    for run in runs:
        network, normalize = run.network, Normalize(run.config.mean, run.config.std)
        say(f"exporting {network.exits} stages of {run.config.recipe.name}")
        first = len(stages) + 1
        graphs = export_stages(network, normalize, run.config.image_size, first)
        runner = StageRunner([graph.onnx for graph in graphs])
        difference = verify(runner, network, normalize, images, first)
        say(f"onnxruntime agrees with torch: logits at most {difference:.1e} apart")
        stages += graphs
    return tuple(stages)


def _modernised(stage: bytes) -> bytes:
    """`stage` as this version exports it, in case an earlier one wrote the bundle."""
    return serialised(resizes_as_products(onnx.load_from_string(stage)))


def portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the directories of this machine."""
    content = recipe.model_dump(mode="json")
    for table, key in (("data", "path"), ("start", "weights")):
        if (content[table] or {}).get(key):
            content[table][key] = Path(content[table][key]).name
    if (content["teacher"] or {}).get("onnx"):
        content["teacher"]["onnx"] = [Path(file).name for file in content["teacher"]["onnx"]]
    return content


def bundle_name(text: str) -> str:
    """`text`, such as the name of a recipe or of files, as the name of a bundle."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:MAX_NAME]
    return name or "cascade"


def tool_versions() -> dict[str, str]:
    """The versions of what made a bundle."""
    return {
        "offramp": __version__,
        "python": platform.python_version(),
        "onnx": version_of("onnx"),
        "onnxruntime": version_of("onnxruntime"),
    }
