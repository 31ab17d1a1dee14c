"""EfficientNet-Lite's stages as ONNX files, in float32 and in int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from exports.bundle.reader import IMAGE
from exports.graphs.stages import export_stages
from exports.stage_runner import StageRunner
from exports.verify import verify
from offramp.onnx_runtime import load_onnxruntime
from tests.training.models.quantised import correlations, int8_stages
from tests.training.models.settling import settle
from training.models.build import build_network
from training.models.multi_exit import MultiExit, Normalize
from training.models.pretrained import load_pretrained, pixel_statistics

SIDE = 64


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Pieces of a photograph, uint8 [48, 64, 64, 3]."""
    photograph = load_sample_image("china.jpg")
    rng = np.random.default_rng(0)
    corners = zip(rng.integers(0, 427 - SIDE, 48), rng.integers(0, 640 - SIDE, 48), strict=True)
    return np.stack([photograph[y : y + SIDE, x : x + SIDE] for y, x in corners])


@pytest.fixture(scope="module")
def normalize() -> Normalize:
    return Normalize(*pixel_statistics("efficientnet-lite0"))


@pytest.fixture(scope="module")
def student(images: NDArray[np.uint8], normalize: Normalize) -> MultiExit:
    """Lite0 with ImageNet's backbone and fresh heads."""
    torch.manual_seed(0)
    network = build_network("efficientnet-lite0", None, 5, [2, 4])
    load_pretrained(network.stages, "efficientnet-lite0", "imagenet")
    network.freeze([network.stages])
    settle(network, normalize(torch.from_numpy(images)))
    return network


@pytest.fixture(scope="module")
def stages(student: MultiExit, normalize: Normalize) -> list[bytes]:
    return [graph.onnx for graph in export_stages(student, normalize, (SIDE, SIDE))]


def operators(stage: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(stage).graph.node}


def test_stages_agree_with_torch(
    student: MultiExit, stages: list[bytes], normalize: Normalize, images: NDArray[np.uint8]
) -> None:
    assert verify(StageRunner(stages), student, normalize, images[:14]) < 1e-3
    session = load_onnxruntime().InferenceSession(stages[0], providers=["CPUExecutionProvider"])
    features, logits = session.run(None, {IMAGE: images})
    with torch.no_grad():
        seen = student.observe(normalize(torch.from_numpy(images)))
    assert seen.features[1].std() > 0.1
    np.testing.assert_allclose(features, seen.features[1].numpy(), atol=1e-3)
    np.testing.assert_allclose(logits, seen.logits[0].numpy(), atol=1e-3)


def test_padding_and_activations_are_part_of_the_convolutions(
    stages: list[bytes], images: NDArray[np.uint8]
) -> None:
    assert all("Clip" in operators(stage) for stage in stages)
    assert not any("Pad" in operators(stage) for stage in stages)
    # The range of an int8 tensor is that of ReLU6 already.
    assert not any({"Pad", "Clip"} & operators(stage) for stage in int8_stages(stages, images))


def test_int8_logits_follow_those_in_float32_and_better_with_float32_layers(
    stages: list[bytes], images: NDArray[np.uint8]
) -> None:
    whole = correlations(stages, int8_stages(stages, images), images)
    assert min(whole) > 0.8, whole
    kept = int8_stages(stages, images, keep_depthwise=True)
    better = correlations(stages, kept, images)
    assert all(b > a for a, b in zip(whole, better, strict=True)), (whole, better)
