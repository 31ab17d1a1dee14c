"""Measures what JPEG compression of its images costs a trained network.

    python -m benchmarks.teaching.compression runs/cifar100-lite0-deep --data data

The weights of a finished run answer the test images of its data set as they are, and compressed with each
quality. Prints the accuracy of the ensemble, which of one exit is that exit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness.corruptions import jpeg
from training.checkpoint import load_checkpoint
from training.data.batches import DeviceDataset
from training.data.dataset import Split
from training.data.load import load_dataset
from training.evaluate import accuracies, predict
from training.models.multi_exit import Normalize

QUALITIES = (90, 80, 60)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, help="of the test split, evenly spread; default: all")
    arguments = parser.parse_args(argv)
    network, config = load_checkpoint(arguments.run)
    test = load_dataset(config.recipe.data, arguments.data).test
    chosen = DeviceDataset.of(test, torch.device("cpu")).spread(arguments.images or len(test))
    for quality in (None, *QUALITIES):
        images = chosen.images.numpy()
        shown = jpeg(images, quality) if quality else images
        split = DeviceDataset.of(Split(shown, chosen.labels.numpy()), torch.device("cpu"))
        logits = predict(network, Normalize(config.mean, config.std), split)
        found = accuracies(logits, split.labels).ensemble
        how = f"JPEG of quality {quality}" if quality else "as they are"
        print(f"{found:.2f} % {how}, {len(split)} images", flush=True)


if __name__ == "__main__":
    main()
