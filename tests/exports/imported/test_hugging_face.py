"""A preprocessor_config.json means what `transformers` does with it, by the type of the processor."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from exports.bundle.errors import ExportError
from exports.imported.config import find_config
from exports.imported.described import PreprocessingConfig
from exports.imported.normalisation import read_normalisations
from exports.options import ResizeRule

MEAN, STD = [0.5, 0.25, 0.0], [0.5, 0.25, 1.0]
NORMAL = {"image_mean": MEAN, "image_std": STD}
SHORTEST_224, SHORTEST_384 = {"shortest_edge": 224}, {"shortest_edge": 384}
BOTH_256 = {"height": 256, "width": 256}


def config_of(
    place: Path, kind: str | None, *options: str, **content: object
) -> PreprocessingConfig:
    """The preprocessing of a file with the type `kind` of the processor; `options` are --mean and --std."""
    named = {} if kind is None else {"image_processor_type": kind}
    (place / "preprocessor_config.json").write_text(json.dumps(NORMAL | named | content))
    given = read_normalisations(options[:1], options[1:])
    return find_config(place / "network.onnx", None, next(iter(given), None))


@pytest.mark.parametrize(
    ("kind", "content", "side", "resized", "rule"),
    [
        ("ViTFeatureExtractor", {"size": 224}, 224, 224, "stretch"),
        ("ViTImageProcessorFast", {"size": 224}, 224, 224, "stretch"),
        ("SegformerFeatureExtractor", {"size": 512}, 512, 512, "stretch"),
        ("DeiTImageProcessor", {"size": 256, "crop_size": 224}, 224, 256, "stretch"),
        ("BeitImageProcessor", {"size": BOTH_256, "crop_size": 224}, 224, 256, "stretch"),
        ("CLIPFeatureExtractor", {"size": 224, "crop_size": 224}, 224, 224, "center_crop"),
        ("MobileNetV2ImageProcessor", {"size": 256, "crop_size": 224}, 224, 256, "center_crop"),
        ("ConvNextFeatureExtractor", {"size": 224}, 224, 256, "center_crop"),
        ("ConvNextImageProcessor", {"size": SHORTEST_224}, 224, 256, "center_crop"),
        (
            "ConvNextImageProcessor",
            {"size": SHORTEST_224, "crop_pct": 0.95},
            224,
            235,
            "center_crop",
        ),
        ("ConvNextImageProcessor", {"size": SHORTEST_384, "crop_pct": 0.9}, 384, 384, "stretch"),
        (
            "PoolFormerImageProcessor",
            {"size": SHORTEST_224, "crop_size": 224, "crop_pct": 0.9},
            224,
            248,
            "center_crop",
        ),
        (
            "LevitImageProcessor",
            {"size": SHORTEST_224, "crop_size": 224},
            224,
            256,
            "center_crop",
        ),
    ],
)
def test_size_and_crop_follow_from_the_type(
    tmp_path: Path,
    kind: str,
    content: dict[str, object],
    side: int,
    resized: int,
    rule: ResizeRule,
) -> None:
    crops = {"do_center_crop": "crop_size" in content}
    config = config_of(tmp_path, kind, **crops, **content)
    assert (config.side, config.rule) == (side, rule)
    assert math.floor(side / config.crop + 1e-6) == resized


def test_the_older_key_of_the_type_is_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, None, feature_extractor_type="ViTFeatureExtractor", size=224)
    assert config.rule == "stretch"


@pytest.mark.parametrize("kind", [None, "NewImageProcessor"])
def test_an_integer_size_of_an_unknown_type_is_refused(tmp_path: Path, kind: str | None) -> None:
    with pytest.raises(ExportError, match=r'write \{"height": 224, "width": 224\} or'):
        config_of(tmp_path, kind, size=224)


def test_a_crop_to_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="add crop_size"):
        config_of(tmp_path, "ViTImageProcessor", size=224, do_center_crop=True)


def test_an_offset_is_refused_unless_mean_and_deviation_are_given(tmp_path: Path) -> None:
    kind, size = "EfficientNetImageProcessor", SHORTEST_224
    with pytest.raises(ExportError, match="rescale_offset"):
        config_of(tmp_path, kind, size=size, rescale_offset=True)
    given = config_of(tmp_path, kind, "0,0,0", "1,1,1", size=size, rescale_offset=True)
    assert given.std == (255, 255, 255)


@pytest.mark.parametrize("said", [{"include_top": True}, {}])
def test_efficientnet_divides_by_the_deviation_twice(
    tmp_path: Path, said: dict[str, object]
) -> None:
    config = config_of(tmp_path, "EfficientNetImageProcessor", size=SHORTEST_224, **said)
    assert config.mean == (127.5, 63.75, 0)
    assert config.std == (255 / 4, 255 / 16, 255)
    once = config_of(tmp_path, "EfficientNetImageProcessor", size=SHORTEST_224, include_top=False)
    assert once.std == (255 / 2, 255 / 4, 255)


def test_mobilevit_is_not_normalised_and_takes_blue_first(tmp_path: Path) -> None:
    config = config_of(tmp_path, "MobileViTImageProcessor", size=SHORTEST_224)
    assert (config.mean, config.std, config.channels) == ((0, 0, 0), (255, 255, 255), "bgr")


def test_a_mean_that_is_missing_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="give --mean and --std"):
        config_of(tmp_path, "ViTImageProcessor", size=224, image_mean=None)


@pytest.mark.parametrize(
    "content",
    [{"rescale_factor": 1e-320}, {"image_mean": [1e308, 0, 0]}, {"image_std": [1e-30, 1, 1]}],
)
def test_numbers_that_cannot_be_meant_are_one_sentence(
    tmp_path: Path, content: dict[str, object]
) -> None:
    with pytest.raises(ExportError, match=f"is not valid: {next(iter(content))}"):
        config_of(tmp_path, "ViTImageProcessor", size=224, **content)
