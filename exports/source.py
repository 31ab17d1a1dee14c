"""The source of an export: the checkpoint of a finished run, or a float32 bundle.

Both provide float32 stages with their cost, and the data set they were trained on. Only a checkpoint
needs torch.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from exports.bundle.certificate import Reference, Target
from exports.bundle.errors import ExportError
from exports.bundle.manifest import MANIFEST, InputSpec
from exports.bundle.reader import Bundle, load_bundle, load_table
from exports.graphs.onnx_tools import serialised
from exports.graphs.stage_graph import StageGraph
from exports.graphs.upsample import resizes_as_products
from exports.options import Precision
from exports.stage_runner import StageRunner
from exports.tuning.certificate import halves
from offramp import __version__
from offramp.extras import needs_extra
from training.data.dataset import Split
from training.data.load import load_dataset, split_held_out
from training.recipes.network import LiteNetwork
from training.recipes.schema import DataRecipe, Recipe

if TYPE_CHECKING:
    from exports.cascade import TrainedRun


@dataclass(frozen=True)
class EvaluationData:
    """The splits that were not trained on; `counts` has the sizes of train, held_out and test.

    Of a data set without a test split, `test` is the half of the held-out split on which no temperature
    is fitted, and its count is 0. Under the target `agreement` the labels are the answers of `reference`.
    """

    name: str
    held_out: Split
    test: Split
    counts: dict[str, int]
    target: Target = "labels"
    reference: Reference = "last"


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


def open_source(path: Path, data_root: Path, say: Callable[[str], None]) -> Source:
    """Read the checkpoint or the float32 bundle in directory `path`, and its data under `data_root`.

    With a checkpoint come those of the runs that follow it (`followed_by`), from the same directory of
    runs. A checkpoint's stages are compared with torch. Raises ExportError, BundleError, CheckpointError
    or DataError.
    """
    if (path / MANIFEST).exists():
        return _from_bundle(path, data_root)
    return _from_checkpoint(path, data_root, say)


def _from_bundle(path: Path, data_root: Path) -> Source:
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
    if origin.refit:
        raise ExportError(
            f"the weights in {path} were trained on its held-out split, so another precision cannot be "
            "calibrated on it: export the run instead."
        )
    try:
        recipe = DataRecipe.model_validate(origin.recipe.get("data"))
    except ValidationError as error:
        raise ExportError(f"{path} does not say which data it was trained on.") from error
    data = _load(recipe, data_root, manifest.labels, path)
    if not np.array_equal(data.held_out.labels, load_table(path, manifest).labels):
        raise ExportError(
            f"{path} was calibrated on other samples than {data.name} under {data_root} holds out."
        )
    stages = bundle_stages(bundle)
    return Source(
        name=manifest.name,
        version=manifest.version,
        labels=manifest.labels,
        input=manifest.input,
        stages=stages,
        calibrated=stages,
        data=data,
        recipe=origin.recipe,
        followers=origin.followers,
        seed=origin.seed,
        tools=origin.tools | tool_versions(),
        reject_below=bundle.policy.reject_below,
    )


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


def _from_checkpoint(path: Path, data_root: Path, say: Callable[[str], None]) -> Source:
    with needs_extra("train"):
        import torch

        from exports.cascade import load_cascade
        from training.checkpoint import CONFIG
        from training.recipes.refit import REFIT
    runs = load_cascade(path)
    config = runs[0].config
    recipe = config.recipe
    if not recipe.data.held_out:
        raise ExportError(
            f"{path} held out no images to choose thresholds on: export {path.parent}."
        )
    if recipe.refit and not (path / REFIT / CONFIG).is_file():
        raise ExportError(
            f"the refit of {path} is not finished: train with --resume, or without a refit."
        )
    data = _load(recipe.data, data_root, config.classes, path, config.fingerprint)
    calibrated = stages = trained_stages(runs, data.held_out.images, say)
    if recipe.refit:
        stages = trained_stages(load_cascade(path / REFIT), data.held_out.images, say)
    return Source(
        name=recipe.name.replace("/", "-"),
        version="1",
        labels=config.classes,
        input=InputSpec(height=config.image_size[0], width=config.image_size[1]),
        stages=stages,
        calibrated=calibrated,
        data=data,
        recipe=portable(recipe),
        followers=tuple(portable(run.config.recipe) for run in runs[1:]),
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


def _load(
    data: DataRecipe,
    root: Path,
    classes: tuple[str, ...],
    path: Path,
    fingerprint: str | None = None,
) -> EvaluationData:
    dataset = load_dataset(data, root)
    if dataset.classes != classes:
        raise ExportError(f"{path} was trained on other classes than {dataset.name} has.")
    if not dataset.matches(fingerprint):
        raise ExportError(
            f"{path} was trained on other images than {dataset.name} has now, so its held-out split "
            "is lost: restore the images it was trained on, or train again."
        )
    trained_on, held_out = split_held_out(data, dataset.train.labels)
    counts = {"train": len(trained_on), "held_out": len(held_out), "test": len(dataset.test)}
    _, unused = halves(len(held_out))
    test = dataset.test if len(dataset.test) else dataset.train.take(held_out[unused])
    return EvaluationData(dataset.name, dataset.train.take(held_out), test, counts)


def portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the directories of this machine."""
    content = recipe.model_dump(mode="json")
    for table, key in (("data", "path"), ("start", "weights")):
        if (content[table] or {}).get(key):
            content[table][key] = Path(content[table][key]).name
    if (content["teacher"] or {}).get("onnx"):
        content["teacher"]["onnx"] = [Path(file).name for file in content["teacher"]["onnx"]]
    return content


def tool_versions() -> dict[str, str]:
    """The versions of what made a bundle."""
    return {
        "offramp": __version__,
        "python": platform.python_version(),
        "onnx": version_of("onnx"),
        "onnxruntime": version_of("onnxruntime"),
    }
