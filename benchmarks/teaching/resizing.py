"""Measures what antialiasing is worth in a network that shrinks its images.

    python -m benchmarks.teaching.resizing runs/photos photos/test

The weights of a finished run answer the images of a folder with a subfolder for each class, shrunk in both
ways. Prints both accuracies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from offramp.images import ImageSpec, decode
from training.checkpoint import load_checkpoint
from training.data.image_files import MAX_PIXELS
from training.models.multi_exit import Normalize

BATCH = 32


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args(argv)
    network, config = load_checkpoint(arguments.run)
    normalize, spec = Normalize(config.mean, config.std), ImageSpec(*config.image_size)
    index = {name: n for n, name in enumerate(config.classes)}
    files = [f for f in sorted(arguments.folder.glob("*/*")) if f.parent.name in index]
    images = torch.from_numpy(np.stack([decode(f.read_bytes(), spec, MAX_PIXELS) for f in files]))
    labels = torch.tensor([index[file.parent.name] for file in files])
    for antialias in (False, True):
        network.antialias = antialias
        with torch.no_grad():
            logits = [network(normalize(batch))[-1] for batch in torch.split(images, BATCH)]
        right = (torch.cat(logits).argmax(1) == labels).float().mean()
        how = "with" if antialias else "without"
        print(
            f"{100 * right:.2f} % {how} antialiasing at {network.side} pixels, {len(files)} images"
        )


if __name__ == "__main__":
    main()
