"""What is written into a graph is what numpy, Pillow and the configuration files say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from PIL import Image

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.resampling import Interpolation, resampling_matrix
from exports.bundle.preprocessing.spec import Preprocessing
from exports.imported.config import find_config
from exports.imported.normalisation import read_normalisations
from exports.imported.preprocessing import preprocessing_nodes
from tests.exports.imported.classifiers import coloured_images

IMAGENET_PIXELS = (123.675, 116.28, 103.53)
FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def preprocessing(**fields: Any) -> Preprocessing:
    defaults: dict[str, Any] = {
        "side": 16,
        "resized": 20,
        "interpolation": "bicubic",
        "layout": "nchw",
        "channels": "rgb",
        "mean": (100.0, 110.0, 120.0),
        "std": (50.0, 60.0, 70.0),
    }
    return Preprocessing(**(defaults | fields))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resized", [7, 24, 32, 50])
def test_the_matrix_resizes_as_pillow_does(interpolation: Interpolation, resized: int) -> None:
    plane = coloured_images(1)[0, ..., 0].astype(np.float32)
    matrix = resampling_matrix(32, resized, resized, interpolation)
    expected = Image.fromarray(plane).resize((resized, resized), FILTERS[interpolation])
    np.testing.assert_allclose(matrix @ plane @ matrix.T, np.asarray(expected), atol=1e-2)


def test_the_matrix_keeps_the_centre() -> None:
    whole, part = (resampling_matrix(32, 24, side, "bilinear") for side in (24, 20))
    assert np.array_equal(part, whole[2:22])


@pytest.mark.parametrize(
    ("layout", "channels", "source", "half"),
    [
        *itertools.product(("nchw", "nhwc"), ("rgb", "bgr"), (32, 20, 16), (False,)),
        ("nchw", "rgb", 32, True),
    ],
)
def test_the_graph_computes_what_numpy_does(
    layout: str, channels: str, source: int, half: bool
) -> None:
    images = coloured_images(1)[:, :source, :source]
    resized = 16 if source == 16 else 20
    own = preprocessing(layout=layout, channels=channels, resized=resized, half=half)
    nodes, constants = preprocessing_nodes(own, source, "target")
    type_ = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "preprocessing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", source, source, 3])],
        [helper.make_tensor_value_info("target", type_, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    actual = session.run(None, {"image": images})[0]
    expected = own.apply(images)
    assert actual.shape == ((4, 3, 16, 16) if layout == "nchw" else (4, 16, 16, 3))
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, atol=5e-3 if half else 1e-4)


def test_channels_in_reverse_keep_their_own_mean() -> None:
    images = np.zeros((1, 16, 16, 3), np.uint8)
    images[..., 0] = 200  # red
    values = preprocessing(resized=16, channels="bgr").apply(images)
    np.testing.assert_allclose(values[0, :, 0, 0], [-120 / 70, -110 / 60, 2], rtol=1e-6)


def written(path: Path, name: str, content: object) -> Path:
    (path / name).write_text(json.dumps(content))
    return path / "network.onnx"


def test_a_preprocessor_config_beside_the_file_is_read(tmp_path: Path) -> None:
    network = written(
        tmp_path,
        "preprocessor_config.json",
        {
            "do_resize": True,
            "size": {"shortest_edge": 256},
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
            "resample": 3,
            "do_normalize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "image_processor_type": "ViTImageProcessor",
        },
    )
    config = find_config(network, None)
    assert config.origin == "preprocessor_config.json"
    assert (config.side, config.crop, config.rule) == (224, 224 / 256, "center_crop")
    assert config.interpolation == "bicubic"
    np.testing.assert_allclose(config.mean, IMAGENET_PIXELS)
    assert find_config(network, "imagenet").mean == pytest.approx(IMAGENET_PIXELS)
    assert find_config(network, "minus-one-one").std == (127.5, 127.5, 127.5)


def test_a_mean_and_a_deviation_replace_those_of_a_file_or_are_enough(tmp_path: Path) -> None:
    own = read_normalisations(["0.5,0.25,0"], ["1, 0.5 ,0.1"])[0]
    alone = find_config(tmp_path / "network.onnx", None, own)
    assert alone.origin == "--mean and --std"
    assert (alone.mean, alone.std) == ((127.5, 63.75, 0), (255, 127.5, 25.5))
    assert (alone.side, alone.crop, alone.channels) == (None, 1, "rgb")
    content = {
        "do_rescale": True,
        "size": {"shortest_edge": 224},
        "do_flip_channel_order": True,
    }
    network = written(tmp_path, "preprocessor_config.json", content)
    beside = find_config(network, None, own)
    assert beside.origin == "preprocessor_config.json, --mean and --std"
    assert (beside.mean, beside.side, beside.channels) == (alone.mean, 224, "bgr")
    assert find_config(network, str(tmp_path / "preprocessor_config.json"), own) == beside


def test_a_size_of_height_and_width_stretches(tmp_path: Path) -> None:
    size = {"height": 224, "width": 224}
    content = {"size": size, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False}
    network = written(tmp_path, "preprocessor_config.json", content)
    config = find_config(network, None)
    assert (config.side, config.rule) == (224, "stretch")
    np.testing.assert_allclose((config.mean, config.std), ((0, 0, 0), (255, 255, 255)))


def test_timms_config_is_read_and_other_configurations_are_not(tmp_path: Path) -> None:
    cfg = {
        "input_size": [3, 240, 240],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    network = written(tmp_path, "config.json", {"architecture": "x", "pretrained_cfg": cfg})
    config = find_config(network, None)
    assert (config.side, config.crop, config.interpolation) == (240, 0.95, "bicubic")
    written(tmp_path, "config.json", {"model_type": "vit", "id2label": {"0": "a"}})
    with pytest.raises(ExportError, match="is not known"):
        find_config(network, None)


def test_a_damaged_or_impossible_config_is_one_sentence(tmp_path: Path) -> None:
    network = written(tmp_path, "preprocessor_config.json", {"image_mean": "grey"})
    with pytest.raises(ExportError, match="is not valid: image_mean"):
        find_config(network, None)
    written(tmp_path, "preprocessor_config.json", {"do_normalize": True, "resample": 1})
    with pytest.raises(ExportError, match="resizes with filter 1"):
        find_config(network, None)
