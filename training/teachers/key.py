"""The key of a cache of views: a digest of everything that its logits depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import WEIGHTS, CheckpointConfig
from training.errors import RecipeError
from training.recipes.schema import DataRecipe
from training.recipes.teacher import TeacherRecipe

# Another number when the same recipe gives other views or files.
FORMAT = 1
# The fields of a data recipe that do not belong to its augmentation.
NOT_AUGMENTATION = {"name", "path", "side", "held_out", "held_out_seed"}


@dataclass(frozen=True)
class TrainingImages:
    """The training split: its recipe, the number and size of its images.

    Where the files of a data set can change, `fingerprint` is the data set's and `pixels` the SHA-256 of
    the images: the fingerprint does not change with the contents of an image file.
    """

    recipe: DataRecipe
    count: int
    height: int
    width: int
    fingerprint: str | None = None
    pixels: str | None = None


def key_content(
    images: TrainingImages, teacher: dict[str, Any], exits: int, classes: int
) -> dict[str, Any]:
    """What the logits of the views depend on, as it is written beside them."""
    data = images.recipe
    return {
        "format": FORMAT,
        "teacher": teacher,
        "exits": exits,
        "classes": classes,
        "data": {
            "name": data.name,
            "fingerprint": images.fingerprint,
            "pixels": images.pixels,
            "held_out": data.held_out,
            "held_out_seed": data.held_out_seed,
            "images": [images.count, images.height, images.width],
        },
        "augmentation": data.model_dump(mode="json", exclude=NOT_AUGMENTATION, exclude_none=True),
    }


def digest(content: dict[str, Any]) -> str:
    """The SHA-256 of `content` as JSON, in hexadecimal."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def describe_run(directory: Path, config: CheckpointConfig, precision: str) -> dict[str, Any]:
    """The part of the key for the finished run in `directory` as the teacher."""
    network = config.recipe.network.model_dump(mode="json", exclude_none=True)
    crop_side = config.recipe.train.crop_side
    return {
        "weights": _file_digest(directory / WEIGHTS),
        "network": network if crop_side is None else network | {"side": crop_side},
        "mean": list(config.mean),
        "std": list(config.std),
        "precision": precision,
    }


def describe_onnx(teacher: TeacherRecipe) -> dict[str, Any]:
    """The part of the key for the ONNX classifiers of `teacher`. Raises RecipeError if one is missing."""
    assert teacher.onnx is not None
    return {
        "onnx": [_onnx_digests(Path(path)) for path in teacher.onnx],
        "input": teacher.onnx_input,
        "mean": teacher.onnx_mean,
        "std": teacher.onnx_std,
        "output": teacher.onnx_output,
    }


def _onnx_digests(path: Path) -> list[str]:
    """The digests of an ONNX file and of the files that hold its weights, if they are apart."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise RecipeError(f"the teacher {path} cannot be read: {error}.") from error
    apart = {
        onnx.external_data_helper.ExternalDataInfo(tensor).location
        for tensor in model.graph.initializer
        if onnx.external_data_helper.uses_external_data(tensor)
    }
    return [_file_digest(file) for file in (path, *(path.parent / name for name in sorted(apart)))]


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecipeError(f"the teacher's file {path} cannot be read: {error}.") from error
