"""The preprocessor_config.json of Hugging Face, whose meaning depends on the type of the processor.

Read as `transformers` 4 does it: src/transformers/models/*/image_processing_*.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.resampling import Interpolation
from exports.bundle.preprocessing.spec import Side
from exports.bundle.untrusted.safe_files import one_line
from exports.imported.described import (
    Deviation,
    Deviations,
    Means,
    PreprocessingConfig,
    in_pixels,
)
from exports.options import ResizeRule

# Processors by their names without `ImageProcessor` or `FeatureExtractor`. An integer as size is both sides
# of the result for the first, and the shorter side for the others.
STRETCHING = frozenset({"Beit", "DeiT", "EfficientNet", "Segformer", "ViT"})
CROPPING = frozenset(
    {
        *("Bit", "CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT"),
        "PoolFormer",
    }
)
# Pillow's numbers.
RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
# ConvNext crops this share where the file does not say one, and nothing from this size on.
CONVNEXT_CROP = 224 / 256
CONVNEXT_WHOLE_SIDE = 384
# Levit resizes to so much more than the size.
LEVIT_MARGIN = 256 / 224


class _Size(BaseModel):
    """A size in a preprocessor_config.json."""

    shortest_edge: Side | None = None
    height: Side | None = None
    width: Side | None = None

    def side(self, file: Path) -> int:
        """The side of a square."""
        if self.height != self.width:
            raise ExportError(f"{file} has an input that is not square.")
        side = self.shortest_edge or self.height
        if side is None:
            raise ExportError(f"{file} has a size without height, width or shortest_edge.")
        return side


class Preprocessor(BaseModel):
    """A preprocessor_config.json, of which other keys are ignored."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool = True
    size: _Size | Side | None = None
    do_center_crop: bool = False
    crop_size: _Size | Side | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: Deviation = 1 / 255
    rescale_offset: bool = False
    do_normalize: bool | None = None
    image_mean: Means | None = None
    image_std: Deviations | None = None
    include_top: bool | None = None
    do_flip_channel_order: bool | None = None

    def config(self, file: Path, *, normalised: bool) -> PreprocessingConfig:
        """The preprocessing that `file` describes. With `normalised` its mean and deviation do not matter.

        Raises ExportError for what a graph cannot do, and for what is not known for certain.
        """
        if self.resample not in RESAMPLE:
            raise ExportError(
                f"{file} resizes with filter {self.resample}; only 2 (bilinear) and 3 (bicubic) can be "
                "written into a graph."
            )
        side, crop, rule = self._geometry(file)
        unknown = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
        mean, std = unknown if normalised else self._normalisation(file)
        flips = self.do_flip_channel_order
        return PreprocessingConfig(
            origin=file.name,
            mean=mean,
            std=std,
            side=side,
            crop=crop,
            rule=rule,
            interpolation=RESAMPLE[self.resample],
            channels="bgr" if (self._kind == "MobileViT" if flips is None else flips) else "rgb",
        )

    @property
    def _kind(self) -> str:
        """The name of the processor, such as `ViT`."""
        name = self.image_processor_type or self.feature_extractor_type or ""
        return re.sub("(ImageProcessor|FeatureExtractor)[A-Za-z]*$", "", name)

    def _geometry(self, file: Path) -> tuple[int | None, float, ResizeRule]:
        """The side of the input, None if unknown, the share that is seen, and the rule."""
        side = resized = _side(self.size, file) if self.do_resize else None
        stretched = self._stretches(file) if resized is not None else False
        if self._kind == "ConvNext":
            if resized is None or resized >= CONVNEXT_WHOLE_SIDE:
                return resized, 1.0, "center_crop" if resized is None else "stretch"
            return resized, self.crop_pct or CONVNEXT_CROP, "center_crop"
        if resized is not None and self.crop_pct is not None:
            resized = int(resized / self.crop_pct)
        if resized is not None and self._kind == "Levit" and not stretched:
            resized = int(resized * LEVIT_MARGIN)
        if self.do_center_crop:
            if self.crop_size is None:
                raise ExportError(f"{file} crops to a size that it does not say: add crop_size.")
            side = _side(self.crop_size, file)
        if side is None or resized is None:
            return side, 1.0, "center_crop"
        if side > resized:
            raise ExportError(f"{file} crops {side} pixels of {resized}, which is padding.")
        return side, side / resized, "stretch" if stretched else "center_crop"

    def _stretches(self, file: Path) -> bool:
        """Whether both sides are resized to the size."""
        if isinstance(self.size, _Size):
            return self.size.shortest_edge is None
        if self._kind in STRETCHING:
            return True
        if self._kind not in CROPPING:
            raise ExportError(
                f"{file} has the size {self.size}, which is both sides for some types of processor and the "
                f"shorter one for others, and the type {one_line(self._kind) or 'none'}: write "
                f'{{"height": {self.size}, "width": {self.size}}} or {{"shortest_edge": {self.size}}}.'
            )
        return False

    def _normalisation(self, file: Path) -> tuple[Means, Deviations]:
        """Mean and deviation of pixels from 0 to 255."""
        if self.rescale_offset:
            raise ExportError(
                f"{file} has rescale_offset, which versions of transformers compute differently: give --mean "
                "and --std."
            )
        # Of MobileViT pixels are never normalised; EfficientNet divides by the deviation a second time.
        normalises = self._kind != "MobileViT" if self.do_normalize is None else self.do_normalize
        again = self._kind == "EfficientNet" if self.include_top is None else self.include_top
        mean, std = self.image_mean, self.image_std
        if (normalises and mean is None) or ((normalises or again) and std is None):
            raise ExportError(
                f"{file} has no image_mean and image_std, but normalises: give --mean and --std."
            )
        unit = 1 / self.rescale_factor if self.do_rescale else 1.0
        once = std if normalises and std is not None else (1.0, 1.0, 1.0)
        twice = std if again and std is not None else (1.0, 1.0, 1.0)
        return (
            in_pixels(mean if normalises and mean is not None else (0.0, 0.0, 0.0), unit),
            in_pixels([a * b for a, b in zip(once, twice, strict=True)], unit),
        )


def _side(size: _Size | int | None, file: Path) -> int | None:
    return size.side(file) if isinstance(size, _Size) else size
