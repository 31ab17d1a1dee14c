"""The ratios behind the README's figures of serving, with margin: of CPU time, none absolute."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import quick
from benchmarks.harness.images import test_images as make_images
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100


@pytest.mark.serial
def test_serving_costs_little_more_than_the_network(tmp_path: Path) -> None:
    bundle = load_bundle(CIFAR100)
    images = make_images(bundle, None, tmp_path / "images.npz")
    # Generated images seldom leave early by themselves.
    first = bundle.policy.override(mode="early_exit", threshold=0)
    ratios = quick.measure(bundle, images, first, turns=50, seconds=0.6)
    assert ratios.chained < 1.3
    assert ratios.decided < 1.4
    assert ratios.early < 0.7
    assert ratios.http > 0.6
    assert ratios.generator < 0.4
