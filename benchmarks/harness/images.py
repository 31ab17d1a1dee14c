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
    """IMAGES of the test split of the bundle's data set below `root`, else generated ones. Those of a folder
    are its files as they are, others PNG."""
    files, labels = pictures(bundle.manifest.input, 200), None
    if root is not None:
        try:
            files, labels = _of_data_set(bundle, root)
        except (OfframpError, KeyError, ValueError) as error:
            print(f"using generated images: {error}", file=sys.stderr)
    pack(files, packed)
    return Images(files, labels, packed)


def _of_data_set(bundle: Bundle, root: Path) -> tuple[list[bytes], list[int]]:
    # Imported here because it loads torch.
    from training.data.image_folder import list_images
    from training.data.load import load_dataset
    from training.recipes.schema import DataRecipe

    data = DataRecipe.model_validate(bundle.manifest.provenance.recipe["data"])
    if data.name != "folder":
        test = load_dataset(data, root).test.take(np.arange(IMAGES))
        return [png(pixels) for pixels in test.images], test.labels.tolist()
    assert data.path is not None
    listed = list_images(root / data.path).test
    if listed is None:
        raise ValueError(f"{root / data.path} has no test split")
    order = {name: number for number, name in enumerate(bundle.manifest.labels)}
    found = [(path, order[name]) for name, paths in listed.items() for path in paths]
    # Every class is among them.
    some = found[:: -(-len(found) // IMAGES)]
    return [path.read_bytes() for path, _ in some], [number for _, number in some]


def label(bundle: Bundle) -> str:
    """The bundle's name with its precision."""
    return f"{bundle.manifest.name} {bundle.manifest.precision}"
