from __future__ import annotations

import pytest

from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.scheduling.costs import (
    BATCH_OVERHEAD_S,
    MAX_BATCH,
    MAX_BATCH_S,
    CostTable,
    DecodeCosts,
    measure,
)
from tests.serving.tiny_bundle import EXITS


def test_sizes_between_the_measured_ones_are_interpolated() -> None:
    costs = CostTable([{1: 0.010, 2: 0.012, 4: 0.020}])
    assert costs.seconds(1, 3) == pytest.approx(0.016)
    assert costs.seconds(1, 32) == pytest.approx(0.160)


def test_the_best_batch_is_the_smallest_that_is_cheap_per_image() -> None:
    # Half the cost per image at 4, and no less at larger sizes.
    costs = CostTable([{1: 0.004, 2: 0.005, 4: 0.008, 8: 0.0159, 16: 0.0318, 32: 0.0635}])
    assert costs.best_batch(1) == 4
    assert costs.seconds_per_image(1) == pytest.approx(0.002)
    # Twice the images take twice the time: single images are answered sooner.
    assert CostTable([{1: 0.004, 32: 0.128}]).best_batch(1) == 1


def test_the_best_batch_does_not_occupy_a_worker_for_too_long() -> None:
    long = MAX_BATCH_S * 0.9
    costs = CostTable([{1: long, 2: long * 1.2, 32: long * 2}])
    assert costs.best_batch(1) == 1


def test_a_larger_batch_never_takes_less_time() -> None:
    costs = CostTable([{1: 0.003, 2: 0.002, 4: 0.004}])
    seconds = [costs.seconds(1, size) for size in range(MAX_BATCH + 1)]
    assert seconds == sorted(seconds)


def test_measuring_is_not_observed(bundle: Bundle) -> None:
    observed: list[int] = []
    costs = measure(Engine(bundle, on_stage=lambda stage, batch, seconds: observed.append(stage)))
    assert observed == []
    assert all(costs.seconds(stage, 1) > BATCH_OVERHEAD_S for stage in range(1, EXITS + 1))


def test_the_overhead_of_a_batch_makes_batches_of_small_stages_pay(bundle: Bundle) -> None:
    costs = measure(Engine(bundle))
    assert all(costs.best_batch(stage) > 1 for stage in range(1, EXITS + 1))


def test_decoding_is_estimated_from_files_of_similar_size() -> None:
    costs = DecodeCosts()
    assert costs.estimate(1_000_000) > costs.estimate(1000)
    for _ in range(100):
        costs.observe(1000, 0.5)
    assert costs.estimate(1000) == pytest.approx(0.5, rel=0.01)
    assert costs.estimate(1_000_000) < 0.1
