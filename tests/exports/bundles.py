"""Bundles that ship with the repository, for tests."""

from __future__ import annotations

from benchmarks.bundles import RESNET18_FP32, RESNET18_INT8

# A ResNet with four exits, in float32 and in int8, with a table of 5,000 samples.
FP32, INT8 = RESNET18_FP32, RESNET18_INT8
