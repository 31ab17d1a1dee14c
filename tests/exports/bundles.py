"""Bundles that ship with the repository, for tests."""

from __future__ import annotations

from pathlib import Path

FP32 = Path(__file__).parents[2] / "benchmarks" / "bundles" / "cifar100-oto-fp32"
