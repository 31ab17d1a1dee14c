"""Preprocessing by name, from a `preprocessor_config.json`, or from timm's `config.json`."""

from __future__ import annotations

import codecs
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.resampling import Interpolation
from exports.bundle.preprocessing.spec import Side, Triple
from exports.bundle.untrusted.safe_files import MAX_MANIFEST_BYTES, one_line, parse_json
from exports.imported.described import Deviations, Means, PreprocessingConfig, in_pixels
from exports.imported.hugging_face import Preprocessor
from exports.imported.normalisation import Normalisation
from offramp.validation import first_problem

PREPROCESSOR_CONFIG = "preprocessor_config.json"
TIMM_CONFIG = "config.json"
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
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
    found = (
        _beside(network, normalised=True)
        if given is None
        else _find(network, given, normalised=True)
    )
    found = found or PreprocessingConfig("", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    return replace(
        found,
        origin=", ".join(filter(None, (found.origin, "--mean and --std"))),
        mean=in_pixels(normalisation.mean),
        std=in_pixels(normalisation.std),
    )


def _find(network: Path, given: str | None, *, normalised: bool = False) -> PreprocessingConfig:
    if given in PRESETS:
        mean, std = PRESETS[given]
        return PreprocessingConfig(given, in_pixels(mean), in_pixels(std))
    if given is not None:
        config = _read(Path(given), normalised=normalised)
        if config is None:
            raise ExportError(f"{given} describes no preprocessing.")
        return config
    beside = _beside(network, normalised=normalised)
    if beside is None:
        raise ExportError(
            f"the preprocessing of {network} is not known, and no {PREPROCESSOR_CONFIG} lies beside it: "
            f"give --preprocess {', '.join(PRESETS)}, or a file, or --mean and --std."
        )
    return beside


def _beside(network: Path, *, normalised: bool) -> PreprocessingConfig | None:
    """The preprocessing in a file beside `network`."""
    for name in (PREPROCESSOR_CONFIG, TIMM_CONFIG):
        file = network.parent / name
        if file.is_file() and (config := _read(file, normalised=normalised)) is not None:
            return config
    return None


def _read(file: Path, *, normalised: bool) -> PreprocessingConfig | None:
    """The preprocessing in `file`, whose mean and deviation do not matter with `normalised`; None if it is a
    configuration of something else."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise ExportError(f"{file} is not a JSON object.")
    try:
        timm = content.get("pretrained_cfg", content)
        if isinstance(timm, dict) and {"input_size", "mean", "std"} <= timm.keys():
            return _Timm.model_validate(timm).config(file)
        if content.keys() & {"image_mean", "do_normalize", "do_rescale"}:
            return Preprocessor.model_validate(content).config(file, normalised=normalised)
    except ValidationError as error:
        raise ExportError(f"{file} is not valid: {one_line(str(first_problem(error)))}.") from error
    return None


def read_json(file: Path) -> object:
    """The content of a JSON file, which may have a byte-order mark; raises ExportError or BundleError, which
    name it."""
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ExportError(f"{file} has more than {MAX_MANIFEST_BYTES} bytes.")
        return parse_json(file.read_bytes().removeprefix(codecs.BOM_UTF8), file)
    except OSError as error:
        raise ExportError(f"{file} cannot be read: {error.strerror}.") from error


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
            mean=in_pixels(self.mean),
            std=in_pixels(self.std),
            side=height,
            crop=self.crop_pct or 1.0,
            rule="stretch" if self.crop_mode == "squash" else "center_crop",
            interpolation=self.interpolation,
        )
