"""Preprocessing by name, from a `preprocessor_config.json`, or from timm's `config.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.resampling import Interpolation
from exports.bundle.preprocessing.spec import Channels, Finite, Positive, Side, Triple
from exports.bundle.untrusted.safe_files import MAX_MANIFEST_BYTES, one_line, parse_json
from exports.imported.normalisation import Normalisation
from offramp.validation import first_problem

ResizeRule = Literal["center_crop", "stretch"]
PREPROCESSOR_CONFIG = "preprocessor_config.json"
TIMM_CONFIG = "config.json"
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
# Pillow's numbers.
RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}

Means = tuple[Finite, Finite, Finite]
Deviations = tuple[Positive, Positive, Positive]


@dataclass(frozen=True)
class PreprocessingConfig:
    """What a preset or a file says of a network's input; `mean` and `std` are in 0..255.

    `side` is the network's input and None if unknown; `crop` is the share of the resized image that the
    network sees. `origin` names the preset or the file.
    """

    origin: str
    mean: Triple
    std: Triple
    side: int | None = None
    crop: float = 1.0
    rule: ResizeRule | None = None
    interpolation: Interpolation = "bilinear"
    channels: Channels = "rgb"


PRESETS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "zero-one": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "minus-one-one": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def find_config(
    network: Path, given: str | None, normalisation: Normalisation | None = None
) -> PreprocessingConfig:
    """The preprocessing of the file `network`: `given` as a preset's name or a file, else the file beside it.

    `normalisation` replaces the mean and deviation of a file, or is all that is known. Raises ExportError if
    nothing is known, if a file describes something that a graph cannot do, or for a preset with
    `normalisation`.
    """
    if normalisation is None:
        return _find(network, given)
    if given in PRESETS:
        raise ExportError(
            f"--preprocess {given} is a mean and a deviation, as --mean and --std are: give one of them."
        )
    found = _beside(network) if given is None else _find(network, given)
    found = found or PreprocessingConfig("", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    return replace(
        found,
        origin=", ".join(filter(None, (found.origin, "--mean and --std"))),
        mean=_in_pixels(normalisation.mean),
        std=_in_pixels(normalisation.std),
    )


def _find(network: Path, given: str | None) -> PreprocessingConfig:
    if given in PRESETS:
        mean, std = PRESETS[given]
        return PreprocessingConfig(given, _in_pixels(mean), _in_pixels(std))
    if given is not None:
        config = _read(Path(given))
        if config is None:
            raise ExportError(f"{given} describes no preprocessing.")
        return config
    beside = _beside(network)
    if beside is None:
        raise ExportError(
            f"the preprocessing of {network} is not known, and no {PREPROCESSOR_CONFIG} lies beside it: "
            f"give --preprocess {', '.join(PRESETS)}, or a file, or --mean and --std."
        )
    return beside


def _beside(network: Path) -> PreprocessingConfig | None:
    """The preprocessing in a file beside `network`."""
    for name in (PREPROCESSOR_CONFIG, TIMM_CONFIG):
        file = network.parent / name
        if file.is_file() and (config := _read(file)) is not None:
            return config
    return None


def _read(file: Path) -> PreprocessingConfig | None:
    """The preprocessing in `file`; None if it is a configuration of something else."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise ExportError(f"{file} is not a JSON object.")
    try:
        timm = content.get("pretrained_cfg", content)
        if isinstance(timm, dict) and {"input_size", "mean", "std"} <= timm.keys():
            return _Timm.model_validate(timm).config(file)
        if content.keys() & {"image_mean", "do_normalize", "do_rescale"}:
            return _Preprocessor.model_validate(content).config(file)
    except ValidationError as error:
        raise ExportError(f"{file} is not valid: {one_line(str(first_problem(error)))}.") from error
    return None


def read_json(file: Path) -> object:
    """The content of a JSON file; raises ExportError or BundleError, which name it."""
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ExportError(f"{file} has more than {MAX_MANIFEST_BYTES} bytes.")
        return parse_json(file.read_bytes(), file)
    except OSError as error:
        raise ExportError(f"{file} cannot be read: {error.strerror}.") from error


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


class _Preprocessor(BaseModel):
    """A preprocessor_config.json, of which other keys are ignored."""

    do_resize: bool = True
    size: _Size | Side | None = None
    do_center_crop: bool = False
    crop_size: _Size | Side | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: Positive = 1 / 255
    do_normalize: bool = True
    image_mean: Means = IMAGENET_MEAN
    image_std: Deviations = IMAGENET_STD
    do_flip_channel_order: bool = False

    def config(self, file: Path) -> PreprocessingConfig:
        if self.resample not in RESAMPLE:
            raise ExportError(
                f"{file} resizes with filter {self.resample}; only 2 (bilinear) and 3 (bicubic) can be "
                "written into a graph."
            )
        size = _side(self.size, file) if self.do_resize else None
        side, crop = size, self.crop_pct or 1.0
        # An integer is the shortest edge; height and width are both sides of the result.
        stretched = isinstance(self.size, _Size) and self.size.shortest_edge is None
        if self.do_center_crop and self.crop_size is not None:
            side = _side(self.crop_size, file)
            crop = 1.0 if size is None or side is None else side / size
            if crop > 1:
                raise ExportError(f"{file} crops {side} pixels of {size}, which is padding.")
        unit = 1 / self.rescale_factor if self.do_rescale else 1.0
        mean = self.image_mean if self.do_normalize else (0.0, 0.0, 0.0)
        std = self.image_std if self.do_normalize else (1.0, 1.0, 1.0)
        return PreprocessingConfig(
            origin=file.name,
            mean=_in_pixels(mean, unit),
            std=_in_pixels(std, unit),
            side=side,
            crop=crop,
            rule="stretch" if stretched else "center_crop",
            interpolation=RESAMPLE[self.resample],
            channels="bgr" if self.do_flip_channel_order else "rgb",
        )


class _Timm(BaseModel):
    """The `pretrained_cfg` of timm's config.json, of which other keys are ignored."""

    input_size: tuple[Literal[3], Side, Side]
    mean: Means
    std: Deviations
    interpolation: Interpolation = "bicubic"
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = 0.875
    crop_mode: Literal["center", "squash"] | None = "center"

    def config(self, file: Path) -> PreprocessingConfig:
        _, height, width = self.input_size
        if height != width:
            raise ExportError(f"{file} has an input of {height} x {width}, which is not square.")
        return PreprocessingConfig(
            origin=file.name,
            mean=_in_pixels(self.mean),
            std=_in_pixels(self.std),
            side=height,
            crop=self.crop_pct or 1.0,
            rule="stretch" if self.crop_mode == "squash" else "center_crop",
            interpolation=self.interpolation,
        )


def _side(size: _Size | int | None, file: Path) -> int | None:
    return size.side(file) if isinstance(size, _Size) else size


def _in_pixels(values: Sequence[Any], unit: float = 255.0) -> Triple:
    red, green, blue = (float(value) * unit for value in values)
    return red, green, blue
