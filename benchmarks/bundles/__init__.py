"""The ResNet-18 bundle `cifar100-oto`: a ResNet-18 of half width with four exits for CIFAR-100, in int8 and
in float32. Studies of policies with several exits are of it; its calibration table has 5,000 samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path(__file__).parent
RESNET18_INT8 = _FOLDER / "cifar100-oto-int8"
RESNET18_FP32 = _FOLDER / "cifar100-oto-fp32"
_NAME = "cifar100-oto"
# Works from every page of docs/guide and docs/design.
RESNET18_LINK = "[the ResNet-18 bundle](../design/benchmarks.md#the-resnet-18-bundle)"


def note_on(labels: Iterable[str]) -> str:
    """A sentence for the pages, after another one, if one of `labels` (names of bundles, with or without
    precision) is the ResNet-18 bundle; else empty."""
    names = {label.split()[0] for label in labels}
    return f" `{_NAME}` is {RESNET18_LINK}." if _NAME in names else ""
