"""What each stage of a bundle sees of an image."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from exports.bundle.errors import PreprocessingError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats
from exports.bundle.preprocessing.resampling import linear, resampling_matrix
from exports.bundle.preprocessing.spec import MAX_SIDE, Preprocessing, Triple
from exports.options import Channels, Layout


@dataclass(frozen=True)
class StageInput:
    """What the network `name`, which begins with stage `stage`, sees of the bundle's image uint8 [H, W, 3].

    `preprocessing` is in the stage's graph; None if it takes the image as it is. With `side` the network
    resizes that to a square again, bilinear, and shrinks it with or without `antialias`.
    """

    stage: int
    name: str
    preprocessing: Preprocessing | None
    side: int | None
    antialias: bool = False

    def pixels(self, image: NDArray[np.uint8]) -> Floats:
        """The pixels that the network's first layer sees, float32 [h, w, 3], RGB in 0..255, not rounded."""
        taken = self.taken(image)
        if self.side is None:
            return taken
        if not self.antialias:
            return linear(taken, self.side, self.side)
        rows, columns = (
            resampling_matrix(size, self.side, self.side, "bilinear") for size in taken.shape[:2]
        )
        shrunk: Floats = np.einsum("ij,jkc,lk->ilc", rows, taken, columns, optimize=True)
        return shrunk

    def taken(self, image: NDArray[np.uint8]) -> Floats:
        """The same before the network's own resizing: the pixels of the tensor that it takes."""
        if self.preprocessing is None:
            return image.astype(np.float32)
        pixels: Floats = self.preprocessing.pixels(image[None])[0]
        return pixels

    def png(self, image: NDArray[np.uint8]) -> bytes:
        """`pixels`, rounded, as a PNG file."""
        stream = io.BytesIO()
        pixels = np.round(self.pixels(image)).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    @property
    def layout(self) -> Layout:
        """The order of the axes of the tensor that the network takes."""
        return self.preprocessing.layout if self.preprocessing else "nhwc"

    @property
    def channels(self) -> Channels:
        """The order of the colours of that tensor."""
        return self.preprocessing.channels if self.preprocessing else "rgb"

    @property
    def mean(self) -> Triple:
        """What is subtracted from pixels of 0 to 255, of red, green and blue."""
        return self.preprocessing.mean if self.preprocessing else (0.0, 0.0, 0.0)

    @property
    def std(self) -> Triple:
        """What they are then divided by."""
        return self.preprocessing.std if self.preprocessing else (1.0, 1.0, 1.0)


def stage_inputs(manifest: Manifest) -> tuple[StageInput, ...]:
    """The inputs of the stages that take the image, in order.

    Raises PreprocessingError if the manifest does not say how an imported network prepares its image.
    """
    stages = [k for k, entry in enumerate(manifest.exits, 1) if entry.input == "image"]
    recipes: list[Mapping[str, Any]] = [manifest.provenance.recipe, *manifest.provenance.followers]
    recipes += [{}] * (len(stages) - len(recipes))
    return tuple(
        _stage_input(stage, recipe, manifest)
        for stage, recipe in zip(stages, recipes, strict=False)
    )


def stage_input(manifest: Manifest, stage: int) -> StageInput:
    """The input of stage `stage`, from 1. Raises PreprocessingError if it does not take the image, too."""
    found = next((one for one in stage_inputs(manifest) if one.stage == stage), None)
    if found is not None:
        return found
    if 1 <= stage <= len(manifest.exits):
        raise PreprocessingError(
            f"stage {stage} takes the features of stage {stage - 1}, not an image."
        )
    raise PreprocessingError(
        f"there is no stage {stage}; the stages are 1 to {len(manifest.exits)}."
    )


def _stage_input(stage: int, recipe: Mapping[str, Any], manifest: Manifest) -> StageInput:
    preprocessing = None
    if "input" in recipe:
        try:
            preprocessing = Preprocessing.model_validate(recipe["input"])
        except ValidationError as error:
            raise PreprocessingError(_unknown(stage)) from error
    elif "onnx" in recipe:
        raise PreprocessingError(_unknown(stage))
    if preprocessing is not None and manifest.input.height != manifest.input.width:
        raise PreprocessingError(_unknown(stage))
    network = recipe.get("network")
    network = network if isinstance(network, Mapping) else {}
    side, antialias = network.get("side"), network.get("antialias") is True
    if not (isinstance(side, int) and 1 <= side <= MAX_SIDE):
        side, antialias = None, False
    return StageInput(stage, str(recipe.get("name", "")), preprocessing, side, antialias)


def _unknown(stage: int) -> str:
    return f"the manifest does not say how stage {stage} prepares its image: make the bundle again."
