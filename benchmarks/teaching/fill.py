"""Measures how long a teacher takes to fill a view, in torch and in onnxruntime.

    python -m benchmarks.teaching.fill

Networks have fresh weights and images are random bytes, which do not change the time. One thread; the
faster of two rounds each. Prints a row for every teacher.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.harness.docs import table
from training.data.batches import DeviceDataset
from training.data.dataset import Split
from training.models.build import network_from_recipe
from training.models.multi_exit import Normalize
from training.recipes.network import NetworkRecipe
from training.recipes.schema import DataRecipe
from training.teachers.cached_views import MAX_BATCH_IMAGES, MAX_BATCH_PIXELS
from training.teachers.classifier import Classifier, NetworkClassifier
from training.teachers.exported import ExportedClassifier

T = TypeVar("T")
CPU = torch.device("cpu")
CLASSES = 100
# Network, side of the images, and how many of them.
TEACHERS: dict[str, tuple[dict[str, Any], int, int]] = {
    "EfficientNet-Lite2, four exits": ({"name": "efficientnet-lite2", "side": 96}, 32, 1024),
    "EfficientNet-Lite2": ({"name": "efficientnet-lite2", "exits": (4,)}, 160, 128),
    "torchvision's MobileNetV3": ({"name": "torchvision-mobilenet-v3", "exits": (4,)}, 128, 256),
    "torchvision's EfficientNet-B0": (
        {"name": "torchvision-efficientnet-b0", "exits": (4,)},
        128,
        256,
    ),
    "VGG-13 of width 32, four exits": ({"name": "vgg13", "width": 32}, 32, 4096),
}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    head = ["teacher", "pixels", "augmentation", "torch, bf16", "onnxruntime, float32", "export"]
    print(table(head, [row(name) for name in TEACHERS]))


def row(name: str) -> list[object]:
    """The times of the teacher `name`, milliseconds an image and seconds."""
    content, side, count = TEACHERS[name]
    network = network_from_recipe(NetworkRecipe.model_validate(content), CLASSES).eval()
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    split = Split(pixels, np.zeros(count, np.int64))
    recipe = DataRecipe(name="cifar100", held_out=0, padding=4, degrade=0.3)
    augmentation, images = timed(lambda: DeviceDataset.of(split, CPU).augmented(recipe, 0))
    export, exported = timed(
        lambda: ExportedClassifier(copy.deepcopy(network), normalize, (side, side))
    )
    by_torch = NetworkClassifier(network, normalize, "bf16", CPU)
    rounds = [(fill(by_torch, images), fill(exported, images)) for _ in range(2)]
    seconds = (augmentation, *(min(times) for times in zip(*rounds, strict=True)))
    return [name, side, *(f"{1e3 * s / count:.2f} ms" for s in seconds), f"{export:.0f} s"]


def fill(classifier: Classifier, images: torch.Tensor) -> float:
    """Seconds to see all `images` in the batches of a view."""
    size = min(MAX_BATCH_IMAGES, MAX_BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    return timed(lambda: [classifier.logits(batch) for batch in torch.split(images, size)])[0]


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """The seconds that `call` takes, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
