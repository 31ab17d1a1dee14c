"""Writes the last exit of a run as a plain ONNX classifier, as it would come from another framework.

    python -m benchmarks.grocery.classifier runs/grocery-lite2 -o lite2

The directory gets NAME.onnx, float32 [N, 3, side, side] -> logits [N, classes], with labels.txt and timm's
config.json beside it, from which `offramp cascade` and `offramp front` read the preprocessing. NAME is that
of the directory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from offramp.files import new_directory
from training.checkpoint import load_checkpoint
from training.models.multi_exit import MultiExit
from training.models.onnx_export import to_onnx

# Mean and deviation as one writes them by hand.
DECIMALS = 6


class LastExit(nn.Module):
    """float32 images [N, 3, H, W], normalised -> the last exit's logits [N, C]."""

    def __init__(self, network: MultiExit) -> None:
        super().__init__()
        self._network = network

    def forward(self, images: Tensor) -> Tensor:
        """The logits of the last exit."""
        logits: Tensor = self._network(images)[-1]
        return logits


def write_classifier(run: Path, target: Path) -> Path:
    """Write the last exit of the finished run `run` into the new directory `target`; return the ONNX file.

    Its input has the side that the network's first layer sees. Raises CheckpointError, WriteError.
    """
    network, config = load_checkpoint(run)
    side = config.recipe.network.side or config.image_size[0]
    model = to_onnx(LastExit(network).eval(), torch.zeros(2, 3, side, side), "images", ["logits"])
    preprocessing = {
        "input_size": [3, side, side],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": [round(value, DECIMALS) for value in config.mean],
        "std": [round(value, DECIMALS) for value in config.std],
    }
    name = f"{target.name}.onnx"
    with new_directory(target) as folder:
        onnx.save(model, folder / name)
        (folder / "labels.txt").write_text("\n".join(config.classes) + "\n", "utf-8")
        (folder / "config.json").write_text(json.dumps(preprocessing, indent=2) + "\n", "utf-8")
    return target / name


def main(argv: Sequence[str] | None = None) -> None:
    """Write the classifier of one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--output", "-o", type=Path, required=True, help="the directory to write")
    arguments = parser.parse_args(argv)
    print(write_classifier(arguments.run, arguments.output))


if __name__ == "__main__":
    main()
