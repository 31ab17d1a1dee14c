"""The images that a bundle is measured with, and the bundle's name in tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.load import pack
from benchmarks.harness.server import pictures, png
from exports.bundle.reader import Bundle
from offramp.errors import OfframpError

IMAGES = 2000


@dataclass
class Images:
    """Files to classify, the same packed for the load generator, and their classes if known."""

    files: list[bytes]
    labels: list[int] | None
    packed: Path


def test_images(bundle: Bundle, root: Path | None, packed: Path) -> Images:
    """IMAGES of the test split of the bundle's data set below `root`, else generated ones."""
    files, labels = pictures(bundle.manifest.input, 200), None
    if root is not None:
        # Imported here because it loads torch.
        from training.data.load import load_dataset
        from training.recipes.schema import DataRecipe

        try:
            data = DataRecipe.model_validate(bundle.manifest.provenance.recipe["data"])
            test = load_dataset(data, root).test.take(np.arange(IMAGES))
        except (OfframpError, KeyError, ValueError) as error:
            print(f"using generated images: {error}", file=sys.stderr)
        else:
            files, labels = [png(pixels) for pixels in test.images], test.labels.tolist()
    pack(files, packed)
    return Images(files, labels, packed)


def label(bundle: Bundle) -> str:
    """The bundle's name with its precision."""
    return f"{bundle.manifest.name} {bundle.manifest.precision}"
