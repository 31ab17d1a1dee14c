"""The constants of the normalisation are repeated for every column: the same values, at less time in int8."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from exports.graphs.stages import export_stages
from exports.precision.quantize import prepare_all, quantize
from offramp.onnx_runtime import session_options
from tests.training.two_exits import two_exits
from training.models.multi_exit import Normalize

SIDE = 224
NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)


def first_stage(images: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
    """A run of the first image through stage 1 in int8, on one thread: the logits of exit 1."""
    exported = export_stages(two_exits(48, True), NORMALIZE, (SIDE, SIDE))
    prepared = prepare_all([graph.onnx for graph in exported], images)
    options = session_options()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        quantize(prepared[0], "u8s8"), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: images[:1]}
    return lambda: session.run(["logits"], feed)[0]


def test_values_are_those_of_one_constant_a_channel(images: NDArray[np.uint8]) -> None:
    pixels = torch.from_numpy(images)
    assert torch.equal(NORMALIZE.repeated(SIDE)(pixels), NORMALIZE(pixels))


def test_a_stage_in_int8_is_faster_and_answers_the_same(
    images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = first_stage(images)
    monkeypatch.setattr(Normalize, "repeated", lambda self, width: self)
    single = first_stage(images)
    np.testing.assert_array_equal(repeated(), single())
    seconds: dict[str, list[float]] = {"repeated": [], "single": []}
    for _ in range(30):
        for name, run in (("repeated", repeated), ("single", single)):
            began = time.thread_time()
            run()
            seconds[name].append(time.thread_time() - began)
    assert statistics.median(seconds["single"]) > 1.3 * statistics.median(seconds["repeated"])
