"""The benchmark of canaries: the faults are those that it names, and its figures are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import GraphProto

from benchmarks.canary.section import figures
from benchmarks.canary.versions import disagrees, fails, is_slow, new_version
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine
from tests.serving.tiny_bundle import SIZE, write_tiny_bundle


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    """`logits(fault)`: those of the first exit of the tiny bundle with the fault, for two images."""
    folder = tmp_path_factory.mktemp("versions")
    bundle = write_tiny_bundle(folder / "tiny")
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)

    def found(fault: Callable[[GraphProto], None] | None) -> np.ndarray:
        name = "equal" if fault is None else fault.__name__
        changed = load_bundle(new_version(bundle, folder / name, "2", 1, fault))
        assert changed.manifest.version == "2"
        return Engine(changed).run_stage(1, images).logits

    return found


def test_every_fault_does_what_it_says(logits: Callable[..., np.ndarray]) -> None:
    right = logits(None)
    assert np.isnan(logits(fails)).all()
    np.testing.assert_allclose(logits(is_slow), right, rtol=1e-5)
    np.testing.assert_array_equal(logits(disagrees), np.roll(right, 1, axis=1))


def test_requests_are_counted_by_version_over_time() -> None:
    report = {
        "due": [0.1, 0.6, 0.7, 1.2],
        "status": [200, 200, 200, 0],
        "latency": [1.0, 2.0, 3.0, 0.0],
    }
    found = figures(report, [False, True, False, False], (0.5, 1.0, 1.5))
    assert (found["requests"], found["not_answered"]) == (4, 1)
    assert found["p99"] == [1.0, 3.0, None]
    assert found["over_time"] == {
        "second": [0.25, 0.75, 1.25],
        "stable": [2.0, 2.0, 0.0],
        "canary": [0.0, 2.0, 0.0],
        "not_answered": [0.0, 0.0, 2.0],
        "p99": [1.0, 3.0, None],
    }
