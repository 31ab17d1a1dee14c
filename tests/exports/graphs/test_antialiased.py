"""A network that shrinks its images with antialiasing does so in its graph, in every precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exports.graphs.stages import export_stages
from exports.precision.quantize import prepare_all, quantize, to_float16
from exports.stage_runner import StageRunner
from tests.training.two_exits import two_exits
from training.models.multi_exit import MultiExit, Normalize

NORMALIZE = Normalize((0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (16, 40, 40, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def stages() -> list[bytes]:
    return [graph.onnx for graph in export_stages(two_exits(12, True), NORMALIZE, (40, 40))]


def logits_of(network: MultiExit, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = torch.stack(
            network(NORMALIZE(torch.from_numpy(images)))
        ).numpy()
    return logits


def test_the_graph_shrinks_as_the_network_does(
    stages: list[bytes], images: NDArray[np.uint8]
) -> None:
    logits = StageRunner(stages).logits(images)
    np.testing.assert_allclose(logits, logits_of(two_exits(12, True), images), atol=1e-5)
    assert np.abs(logits - logits_of(two_exits(12), images)).max() > 0.01


def test_lower_precisions_keep_it(stages: list[bytes], images: NDArray[np.uint8]) -> None:
    expected = StageRunner(stages).logits(images)
    half = StageRunner([to_float16(stage) for stage in stages]).logits(images)
    np.testing.assert_allclose(half, expected, atol=5e-3)
    whole = StageRunner([quantize(each, "u8s8") for each in prepare_all(stages, images)])
    np.testing.assert_allclose(whole.logits(images), expected, atol=0.05)
